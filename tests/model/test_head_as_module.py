"""The head is what it does, not its weight: adapters, biases, hooks, caps and eight-bit weights are heard."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import nn
from torch.nn.utils import parametrize

from loopscale.audit import audit
from loopscale.decode import full_depth_generate, speculative_generate
from loopscale.evaluate import depth_curve
from loopscale.objective import plain_weight
from tests.helpers import tiny_model

IDS = torch.arange(40).view(2, 20) % 31


class Adapted(nn.Linear):
    """A low-rank adapter that keeps the weight's name, as adapter libraries do."""

    def __init__(self, base):
        super().__init__(base.in_features, base.out_features, bias=False)
        self.weight = base.weight
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, 2) * 0.3)

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


class Capped(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return 3 * torch.tanh(self.base(x) / 3)


class EightBits(nn.Module):
    """Rows of bytes and their scale: no `weight`."""

    def __init__(self, base):
        super().__init__()
        self.register_buffer("size", base.weight.detach().abs().amax(1, keepdim=True) / 127)
        self.register_buffer("bytes", (base.weight / self.size).round().to(torch.int8))

    def forward(self, x):
        return x @ (self.bytes * self.size).T.to(x.dtype)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def biased(base):
    head = nn.Linear(base.in_features, base.out_features)
    head.weight = base.weight
    nn.init.normal_(head.bias)
    return head


def hooked(base):
    base.register_forward_hook(lambda module, args, logits: logits * 2)
    return base


def before(base):
    base.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    return base


def parametrized(base):
    parametrize.register_parametrization(base, "weight", Doubled())
    return base


def with_a_forward_of_its_own(base):
    forward = base.forward
    base.forward = lambda x: forward(x) + torch.arange(31)
    return base


HEADS = (Adapted, Capped, EightBits, biased, hooked, before, parametrized, with_a_forward_of_its_own)


def model_with(head, **overrides):
    torch.manual_seed(0)
    model = tiny_model(tie_word_embeddings=False, init="normal", initializer_range=0.3, **overrides)
    model.lm_head = head(model.lm_head)
    return model


def cross_entropies(model):
    states = model(IDS, output_states=True).states
    return torch.stack(
        [
            nn.functional.cross_entropy(model.readout(z, k)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
            for k, z in enumerate(states)
        ]
    )


@pytest.mark.parametrize("supervision", ["per_loop", "terminal", "exit_gate"])
@pytest.mark.parametrize("head", HEADS)
def test_loss_and_gradients_are_those_of_the_logits(head, supervision):
    model = model_with(head, supervision=supervision, entropy_coef=0.0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    each = cross_entropies(model)
    out = model(IDS, labels=IDS)
    torch.testing.assert_close(out.loop_losses.mean(0), each.detach())
    if supervision == "exit_gate":
        return  # its own weights on tokens are tested with the plain head
    plain = each.mean() if supervision == "per_loop" else each[-1]
    torch.testing.assert_close(out.loss, plain)
    mine = torch.autograd.grad(out.loss, parameters, allow_unused=True)
    theirs = torch.autograd.grad(plain, parameters, allow_unused=True)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_the_gate_and_an_adapter_learn_together():
    model = model_with(Adapted, supervision="exit_gate")
    model.train()(IDS, labels=IDS).loss.backward()
    assert model.lm_head.up.grad.any() and model.exit_gate.weight.grad.any()


@pytest.mark.parametrize("head", HEADS)
def test_curves_and_audits_read_the_logits(head):
    model = model_with(head, readout="raw")
    curve = depth_curve(model, [(IDS[:, :-1], IDS[:, 1:])])
    assert [point.cross_entropy for point in curve][:3] == pytest.approx(cross_entropies(model).tolist(), rel=1e-5)
    report = audit(model, [IDS])
    assert report.cross_entropy == pytest.approx(cross_entropies(model).tolist(), rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_decoders_choose_by_the_logits(head):
    model = model_with(head)
    prompt = IDS[:1, :6]
    text = model.generate(prompt, max_new_tokens=12, do_sample=False)
    for write in (full_depth_generate, speculative_generate):
        assert torch.equal(write(model, prompt, 12).sequences, text)


def test_a_whole_model_in_eight_bits_is_measured_and_decoded():
    model = tiny_model(position_embedding="rope")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, EightBits(child))
    curve = depth_curve(model, [(IDS[:, :-1], IDS[:, 1:])])
    assert [point.cross_entropy for point in curve][:3] == pytest.approx(cross_entropies(model).tolist(), rel=1e-5)
    assert set(audit(model, [IDS]).coordinates) == {"scale", "mean"}
    text = model.generate(IDS[:1, :6], max_new_tokens=8, do_sample=False)
    assert torch.equal(speculative_generate(model, IDS[:1, :6], 8).sequences, text)


def test_only_a_bare_matrix_is_taken_for_its_weight():
    base = nn.Linear(4, 5, bias=False)
    assert plain_weight(base) is base.weight and plain_weight(base.weight) is base.weight
    for head in HEADS:
        assert plain_weight(head(nn.Linear(16, 31, bias=False))) is None
    with torch.device("meta"):
        assert plain_weight(nn.Linear(4, 5, bias=False)) is None


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_an_offloaded_model_is_measured_and_decoded(where, tmp_path):
    model = tiny_model(position_embedding="rope", recurrence="damped")
    labels = IDS[:, 1:]
    want = [point.cross_entropy for point in depth_curve(model, [(IDS[:, :-1], labels)])]
    verdicts = {name: one.verdict for name, one in audit(model, [IDS]).coordinates.items()}
    text = model.generate(IDS[:, :6], max_new_tokens=8, do_sample=False)
    if where == "memory":
        cpu_offload(model, execution_device="cpu")
    else:
        disk_offload(model, tmp_path, execution_device="cpu")
    assert next(model.parameters()).is_meta
    assert [p.cross_entropy for p in depth_curve(model, [(IDS[:, :-1], labels)])] == pytest.approx(want, rel=1e-5)
    found = audit(model, [IDS])
    assert {name: one.verdict for name, one in found.coordinates.items()}.items() <= verdicts.items()
    assert any("unembedding_null is left out" in note for note in found.notes)
    for write in (full_depth_generate, speculative_generate):
        assert torch.equal(write(model, IDS[:, :6], 8).sequences, text)
