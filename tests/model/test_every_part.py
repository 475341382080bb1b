"""Every part of every slot, alone and combined: the same numbers however they are computed."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopscale.model.parts import SLOTS
from tests.helpers import tiny_model
from tests.model.test_every_combination import check_decoding

EVERY = [(slot, name) for slot, registry in SLOTS.items() for name in registry]
IDS = torch.arange(24).view(2, 12) * 7 % 31
COMBINED = st.fixed_dictionaries({slot: st.sampled_from(sorted(registry)) for slot, registry in SLOTS.items()})
SIZES = st.fixed_dictionaries(
    {
        "position_embedding": st.sampled_from(["learned", "rope"]),
        "block_norm": st.sampled_from(["rmsnorm", "layernorm"]),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "num_prelude_layers": st.sampled_from([0, 1]),
        "num_coda_layers": st.sampled_from([1, 2]),
        "initial_state": st.sampled_from(["embedded", "zeros", "noise"]),
        "qk_norm": st.booleans(),
        "mlp": st.sampled_from(["swiglu", "gelu"]),
    }
)
# what the first loop receives and how the input enters again, with and without layers before the loops
BEGINNINGS = [
    {"num_prelude_layers": layers, "initial_state": state, "injection": injection, "position_embedding": position}
    for layers in (0, 1)
    for state, injection in (("embedded", "none"), ("embedded", "add"), ("zeros", "linear"), ("noise", "diagonal"))
    for position in ("learned", "rope")
]
NEEDS = {"coda_input": {"num_coda_layers": 1}}  # what a slot is nothing without
MODELS_PAGE = Path(__file__).parents[2] / "docs" / "models.md"
PENALTIES = [{"kind": "norm", "coefficient": 0.1}, {"kind": "anchor", "coefficient": 0.1, "target": 2.0}]


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_the_loops_are_the_verbs_in_a_row(slot, name):
    model = tiny_model(**{slot: name}, **NEEDS.get(slot, {})).double()
    context = model.context(IDS)
    h, exits = model.embed(IDS, context), []
    for k in range(5):  # two more than it was trained for
        z = model.step(h, k, context)
        exits.append(model.readout(z, k, context))
        h = model.carry(z, k, context, h)
    for loops in (1, 3, 5):
        torch.testing.assert_close(model(IDS, num_loops=loops).logits, exits[loops - 1])


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_checkpointed_loops_have_the_same_gradient(slot, name):
    model = tiny_model(**{slot: name}, **NEEDS.get(slot, {}), penalties=PENALTIES).double().train()
    kept = _gradients(model)
    model.checkpoint_loops = True
    for parameter, (gradient, again) in {n: (kept[n], g) for n, g in _gradients(model).items()}.items():
        torch.testing.assert_close(again, gradient, msg=parameter)
    lost = [n for n, gradient in kept.items() if gradient is None or not gradient.any()]
    assert not lost  # every parameter learns


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_its_parameters_are_those_that_the_documentation_says(slot, name):
    sizes = {"D": 16, "D^2": 16**2, "L": 2}  # of the tiny model
    terms = [
        [sizes.get(factor) or int(factor) for factor in term.split()] for term in documented(slot, name).split(" + ")
    ]
    extra = sum(map(math.prod, terms))
    own, first = ({slot: part, **NEEDS.get(slot, {})} for part in (name, next(iter(SLOTS[slot]))))
    assert tiny_model(**own).num_parameters() - tiny_model(**first).num_parameters() == extra


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_under_autocast_the_state_keeps_its_precision(slot, name):
    model = tiny_model(**{slot: name}, num_coda_layers=1)
    inside = []
    model.model.coda[0].register_forward_pre_hook(lambda _, given: inside.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        states = model(IDS, output_states=True).states
    assert {z.dtype for z in states} | set(inside) == {torch.float32}


def possible(parts, sizes):
    """Return whether the loops ever see their input."""
    return sizes["initial_state"] == "embedded" or parts["injection"] != "none"


@pytest.mark.parametrize("fields", BEGINNINGS)
def test_every_beginning_decodes_the_same_with_and_without_a_cache(fields):
    torch.manual_seed(0)
    check_decoding(tiny_model(**fields), 2)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(COMBINED, SIZES)
def test_every_combination_is_saved_and_loaded(tmp_path_factory, parts, sizes):
    assume(possible(parts, sizes))
    folder = tmp_path_factory.mktemp("saved")
    model = tiny_model(**parts, **sizes)
    model.save_pretrained(folder)
    assert torch.equal(type(model).from_pretrained(folder)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("rule", ["euler", "zoh"])
def test_a_diagonal_injection_is_the_solution_of_its_system(rule):
    model = tiny_model(injection={"kind": "diagonal", "rule": rule}).double()
    injection, context = model.model.injection, model.context(IDS)
    with torch.no_grad():
        injection.raw_step.fill_(-8.0)  # a small step: both rules come to the same
        small = injection(torch.ones(2, 12, 16, dtype=torch.float64), context)
        dt = torch.nn.functional.softplus(injection.raw_step)
        expected = 1 + dt * (context.injected - 1)  # h' = -h + e, from h = 1
    torch.testing.assert_close(small, expected, atol=1e-5, rtol=0)


def test_zero_order_hold_is_exact():
    model = tiny_model(injection={"kind": "diagonal", "rule": "zoh"}).double()
    injection, context = model.model.injection, model.context(IDS)
    with torch.no_grad():
        injection.raw_step.fill_(50.0)  # held long enough, the state is B e / A
        injection.log_decay.fill_(0.7)
        held = injection(torch.ones(2, 12, 16, dtype=torch.float64), context)
    torch.testing.assert_close(held, context.injected / torch.tensor(0.7, dtype=torch.float64).exp())


def test_an_orthogonal_injection_sets_the_input_s_direction_anew():
    model = tiny_model(injection="orthogonal", rms_norm_eps=0.0).double()
    context = model.context(IDS)
    e = context.injected
    h = torch.randn_like(e)
    after = model.model.injection(h, context)
    torch.testing.assert_close((after * e).sum(-1), e.square().sum(-1))
    torch.testing.assert_close(after - e, h - (h * e).sum(-1, keepdim=True) / e.square().sum(-1, keepdim=True) * e)


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_a_power_readout_sees_the_scale_to_its_power(alpha):
    readout = tiny_model(readout={"kind": "power", "alpha": alpha, "reference": 2.0}, rms_norm_eps=0.0).readout_norm
    z = torch.randn(2, 3, 16)
    torch.testing.assert_close(readout(10 * z, 0, False), 10**alpha * readout(z, 0, False))
    unit = 2.0 * z / z.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(readout(unit, 0, False), unit)


def test_deepnorm_starts_smaller_and_loading_leaves_weights_alone(tmp_path):
    torch.manual_seed(0)
    plain = tiny_model()
    torch.manual_seed(0)
    deep = tiny_model(residual="deepnorm")
    depth = 3 * 2
    ours, theirs = deep.model.layers[0], plain.model.layers[0]
    torch.testing.assert_close(ours.mlp.down_proj.weight, theirs.mlp.down_proj.weight * (8 * depth) ** -0.5)
    assert torch.equal(ours.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)
    deep.save_pretrained(tmp_path)
    again = type(deep).from_pretrained(tmp_path)
    assert torch.equal(again.model.layers[0].mlp.down_proj.weight, ours.mlp.down_proj.weight)


def documented(slot, name):
    """Return the extra parameters of a part as docs/models.md has them."""
    fields, field = {}, ""
    for line in MODELS_PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and (slot_or_not := cells[0].strip("`")) not in ("field", "---"):
            field = slot_or_not or field
            fields[field, cells[1].split("`")[1]] = cells[3]
    return fields[slot, name]


def _gradients(model):
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
