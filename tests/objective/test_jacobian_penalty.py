"""The penalty of the step against a dense Jacobian, in every form that a loop's operations take."""

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscale import InputError
from loopscale.audit import audit
from loopscale.objective import JacobianPenalty, OneMoreLoop, Weighted
from tests.helpers import tiny_model

IDS = torch.arange(10).view(2, 5) * 7 % 31
LABELS = torch.cat([IDS[:, 1:], torch.full_like(IDS[:, :1], -100)], 1)
ALONE = {"penalties": [{"kind": "jacobian", "coefficient": 0.5}]}
FORMS = [
    {},
    {"recurrence": "gated", "injection": "linear", "position_embedding": "rope", "qk_norm": True},
    {
        "recurrence": "rmsnorm",
        "residual": "post_add",
        "mlp": "gelu",
        "block_norm": "layernorm",
        "num_prelude_layers": 1,
    },
]


def penalised(**fields):
    torch.manual_seed(0)
    return tiny_model(hidden_size=8, num_stack_layers=1, num_loops=2, **{**ALONE, **fields}).double()


def penalty_of(model, ids=IDS, labels=LABELS, **options):
    """Return the penalty's part of a model's loss."""
    both = model(ids, shift_labels=labels, **options).loss
    kinds, model.config.penalties = model.config.penalties, None
    alone = model(ids, shift_labels=labels, **options).loss
    model.config.penalties = kinds
    return both - alone


def dense(model, num_loops=2):
    """Return J of one more loop at the last state, (numbers, numbers), by plain verbs; and what is drawn."""
    context = model.context(IDS)
    h = model.embed(IDS, context)
    for k in range(num_loops):
        z = model.step(h, k, context)
        received = h.detach()
        h = model.carry(z, k, context, h)
    z = z.detach()

    def onward(state):
        return model.step(model.carry(state.view_as(z), num_loops - 1, context, received), num_loops, context).flatten()

    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype) * (LABELS != -100)[..., None]
    with sdpa_kernel(SDPBackend.MATH):
        return jacobian(onward, z.flatten(), create_graph=True), v.flatten()


@pytest.mark.parametrize("fields", FORMS, ids=["plain", "gated", "normed"])
@pytest.mark.parametrize("num_loops", [2, 3])
def test_value_and_gradient_are_those_of_a_dense_jacobian(fields, num_loops):
    model = penalised(**fields)
    J, v = dense(model, num_loops)
    expected = 0.5 * (v @ J).square().sum() / 8 / 8  # 8 channels, 8 labels
    found = penalty_of(model, num_loops=num_loops)
    torch.testing.assert_close(found, expected)
    weights = list(model.model.layers.parameters())
    gradients = (torch.autograd.grad(x, weights, materialize_grads=True) for x in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_its_mean_is_the_mean_square_of_the_jacobian():
    model = penalised()
    J, _ = dense(model)
    many, counted = 150, (LABELS != -100).flatten().repeat_interleave(8)
    found = penalty_of(model, IDS.repeat(many, 1), LABELS.repeat(many, 1)).detach()
    assert float(found) == pytest.approx(0.5 * float(J[counted].detach().square().sum()) / 64, rel=0.03)


def test_the_state_is_a_constant_and_padding_has_no_say():
    model = penalised()
    (embedding,) = torch.autograd.grad(penalty_of(model), model.model.embed_positions.weight)
    assert torch.equal(embedding, torch.zeros_like(embedding))
    padded = [torch.nn.functional.pad(x, (0, 3), value=fill) for x, fill in ((IDS[:1], 3), (LABELS[:1], -100))]
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(1, 8, 8, generator=generator, dtype=torch.float64)
    J_of = OneMoreLoop(model, model.context(padded[0]), torch.zeros(1, 8, 8), 1)
    z = torch.randn(1, 8, 8, dtype=torch.float64)
    whole = JacobianPenalty(Weighted(1.0)).of_step(J_of)([z], padded[1] != -100, 4)
    short = OneMoreLoop(model, model.context(IDS[:1]), torch.zeros(1, 5, 8), 1)
    expected = torch.autograd.functional.vjp(short, z[:, :5], v[:, :5] * (LABELS[:1] != -100)[..., None])[1]
    torch.testing.assert_close(whole, expected.square().mean(-1).sum() / 4)


def test_training_draws_anew_and_evaluation_leaves_the_random_state_alone():
    model = penalised()
    before = torch.get_rng_state()
    assert torch.equal(penalty_of(model), penalty_of(model)) and torch.equal(torch.get_rng_state(), before)
    model.train()
    assert not torch.equal(penalty_of(model), penalty_of(model))


@pytest.mark.parametrize("form", ["checkpointed loops", "checkpointed layers", "eager", "autocast"])
def test_it_runs_wherever_training_does(form):
    model = penalised().float().train()
    model.checkpoint_loops = form == "checkpointed loops"
    if form == "checkpointed layers":
        model.activation_checkpointing_enable()
    if form == "eager":
        model.set_attn_implementation("eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=form == "autocast"):
        torch.manual_seed(1)
        loss = penalty_of(model)
    loss.backward()
    plain = penalised().float().train()
    torch.manual_seed(1)
    expected = penalty_of(plain)
    expected.backward()
    tolerance = {"rtol": 0.05, "atol": 0.01} if form == "autocast" else {}
    for one, other in zip(model.model.layers.parameters(), plain.model.layers.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **tolerance)


def test_attention_without_a_second_derivative_is_told():
    model = penalised()
    model.config._attn_implementation = "flash_attention_2"
    onward = OneMoreLoop(model, model.context(IDS), torch.zeros(2, 5, 8), 1)
    with pytest.raises(InputError, match="'flash_attention_2' cannot be differentiated twice"):
        onward(torch.zeros(2, 5, 8))


def test_tokens_after_a_cache_are_told():
    model = penalised()
    cache = model(IDS, use_cache=True).cache
    with pytest.raises(InputError, match="tokens that follow a cache"):
        model(IDS, labels=IDS, cache=cache)
    model.config.penalties = None
    assert torch.isfinite(model(IDS, labels=IDS, cache=cache).loss)


def test_an_audit_says_that_it_sees_nothing():
    report = audit(penalised(), [IDS])
    scale = report.coordinates["scale"]
    assert scale.verdict == "blind_spot" and scale.seen == {}
    assert any("the jacobian penalty is of the step alone" in note for note in report.notes)
