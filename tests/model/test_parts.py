import pytest
import torch
from transformers import AutoModelForCausalLM

from loopscale import InputError
from loopscale.decode import full_depth_generate
from loopscale.model.parts import SLOTS, Effect
from loopscale.objective import PENALTIES, penalties_of
from tests.helpers import tiny_config, tiny_model

IDS = torch.arange(40).view(2, 20) % 31
NEW = {
    "readout": {"kind": "power", "alpha": 0.25},
    "recurrence": "mixing",
    "injection": {"kind": "add"},
    "penalties": [{"kind": "mean", "coefficient": 2.0}],
    "norm_penalty_coef": 0.5,
}


@pytest.mark.parametrize("registry", [*SLOTS.values(), PENALTIES])
def test_every_mechanism_says_what_it_does_to_scale_and_mean(registry):
    for mechanism in registry.values():
        assert {"scale", "mean"} == mechanism.effects.keys()
        assert all(isinstance(effect, Effect) for effect in mechanism.effects.values())
        assert getattr(mechanism, "__final__", False), mechanism


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"readout": "rawr"}, "unknown readout 'rawr': did you mean 'raw'"),
        ({"recurrence": {"kind": "dampd"}}, "unknown recurrence 'dampd': did you mean 'damped'"),
        ({"readout": {"kind": "raw", "alpha": 1.0}}, "readout 'raw' takes no arguments, got 'alpha'"),
        (
            {"readout": {"kind": "power", "alfa": 1.0}},
            "argument of readout 'power' 'alfa': did you mean 'alpha'",
        ),
        ({"readout": {"kind": "power", "alpha": "much"}}, "readout 'power', alpha must be a number"),
        (
            {"readout": {"kind": "power", "alpha": 2}},
            "readout 'power': alpha is 2.0: give a number above 0",
        ),
        ({"readout": {"alpha": 2}}, "readout is {'alpha': 2}: give a name .* under `kind`"),
        ({"readout": {"kind": ["raw"]}}, "unknown readout"),
        ({"penalties": ["nrom"]}, "unknown penalties 'nrom': did you mean 'norm'"),
        ({"penalties": [{"kind": "norm", "coefficient": -1.0}]}, "coefficient is -1.0: give 0 or more"),
        ({"penalties": ["norm"], "norm_penalty_coef": 0.1}, "norm penalty is given twice"),
        ({"residual": "sandwich", "norm_placement": "sandwich"}, "give one of them"),
    ],
)
@pytest.mark.usefixtures("mechanisms")
def test_a_wrong_choice_is_one_sentence(fields, words):
    with pytest.raises(InputError, match=words):
        tiny_config(**fields)


@pytest.mark.usefixtures("mechanisms")
def test_parts_with_arguments_are_saved_and_loaded(tmp_path):
    model = tiny_model(**NEW)
    with torch.no_grad():
        model.readout_norm.gain.mul_(3)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.readout == {"kind": "power", "alpha": 0.25}
    assert torch.equal(again(IDS).logits, model(IDS).logits)


@pytest.mark.usefixtures("mechanisms")
def test_parts_change_what_they_are_for():
    torch.manual_seed(0)
    base = tiny_model()
    out = base(IDS, labels=IDS)
    for field, value in NEW.items():
        torch.manual_seed(0)
        other = tiny_model(**{field: value})(IDS, labels=IDS)
        assert other.loss != out.loss, field


@pytest.mark.usefixtures("mechanisms")
def test_a_residual_part_is_its_norm_placement():
    for name in ("pre", "sandwich"):
        torch.manual_seed(0)
        one = tiny_model(residual=name)
        torch.manual_seed(0)
        other = tiny_model(norm_placement=name)
        assert one.state_dict().keys() == other.state_dict().keys()
        assert torch.equal(one(IDS).logits, other(IDS).logits)


@pytest.mark.usefixtures("mechanisms")
def test_penalties_add_to_the_loss_and_know_their_gradient():
    model = tiny_model(penalties=NEW["penalties"], norm_penalty_coef=0.5).double()
    assert [penalty.name for penalty in model.penalties] == ["norm penalty", "mean penalty"]
    out = model(IDS, labels=IDS, output_states=True)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[:, -1] = False
    states = torch.stack(out.states)[:, mask]
    expected = 0.5 * states.square().mean() + 2.0 * states.mean(-1).square().mean()
    torch.testing.assert_close(out.loss - out.loop_losses.mean(), expected)
    z = out.states[0]
    torch.testing.assert_close(model.penalties[0].gradient(z), 0.5 * 2 * z / z.shape[-1])
    assert penalties_of(tiny_config(penalties=[{"kind": "norm", "coefficient": 0.0}])) == ()


@pytest.mark.usefixtures("mechanisms")
def test_cached_text_is_uncached_text_with_parts_that_read_k_h_and_e():
    model = tiny_model(**NEW).double()
    asked = {"max_new_tokens": 6, "attention_mask": torch.ones_like(IDS), "pad_token_id": 0}  # a word as well
    for loops in (None, 1, 5):
        cached, uncached = (
            model.generate(IDS, do_sample=False, use_cache=use_cache, num_loops=loops, **asked)
            for use_cache in (True, False)
        )
        assert torch.equal(cached, uncached)
        assert torch.equal(full_depth_generate(model, IDS, num_loops=loops, **asked).sequences, uncached)


@pytest.mark.usefixtures("mechanisms")
def test_a_training_step_reaches_every_parameter():
    model = tiny_model(**NEW, exit_gate=True, supervision="exit_gate").train()
    model.checkpoint_loops = True
    model(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
