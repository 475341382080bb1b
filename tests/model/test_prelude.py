"""Layers before the loops, and what the first loop receives: run once, right for every position, or refused."""

import pytest
import torch

from loopscale import InputError, LoopedForCausalLM
from loopscale.call import Call
from loopscale.evaluate import formula_flops
from tests.helpers import tiny_config, tiny_model

IDS = torch.arange(24).view(2, 12) * 7 % 31
WITH_INJECTION = {"num_prelude_layers": 1, "injection": "linear"}


def test_the_prelude_is_layers_of_the_same_kind_before_the_stack():
    torch.manual_seed(0)
    model, plain = tiny_model(num_prelude_layers=2, num_loops=1).double(), tiny_model(num_stack_layers=4, num_loops=1)
    weights = {
        name.replace("layers.", "prelude.") if name.startswith(("model.layers.0", "model.layers.1")) else name: weight
        for name, weight in plain.state_dict().items()
    }
    renamed = {name.replace("layers.2", "layers.0").replace("layers.3", "layers.1"): w for name, w in weights.items()}
    model.load_state_dict(renamed)
    torch.testing.assert_close(model(IDS).logits, plain.double()(IDS).logits)
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    assert model.num_parameters() == tiny_model().num_parameters() + 2 * layer


def test_the_prelude_runs_once_a_call_and_is_what_injections_read():
    model, runs = tiny_model(**WITH_INJECTION), []
    model.model.prelude[0].register_forward_hook(lambda *_: runs.append(1))
    model(IDS, labels=IDS)
    assert len(runs) == 1
    call = Call(model, IDS)
    states = list(call.states(3))
    assert len(runs) == 2 and torch.equal(call.context.injected, call.embed())
    torch.testing.assert_close(model.readout(states[2], 2), model(IDS).logits)
    some = call.rows(torch.tensor([1]))
    torch.testing.assert_close(list(some.states(3))[2], states[2][1:])
    assert len(runs) == 3


def test_plain_calls_go_on_working_without_an_injection():
    model = tiny_model(num_prelude_layers=1, position_embedding="rope")
    h = model.embed(IDS)
    for k in range(3):
        z = model.step(h, k)
        h = model.carry(z, k)
    torch.testing.assert_close(model.readout(z, 2), model(IDS).logits)


@pytest.mark.parametrize("fields", [WITH_INJECTION, {**WITH_INJECTION, "initial_state": "zeros"}])
def test_hidden_states_have_one_for_every_layer_that_ran(fields):
    model = tiny_model(**fields, attn_implementation="eager")
    out = model(IDS, output_hidden_states=True, output_attentions=True, num_loops=4)
    assert len(out.hidden_states) == model.config.slots(4).total + 1 == 1 + 1 + 4 * 2
    assert len(out.attentions) == 9
    torch.testing.assert_close(out.hidden_states[1], model.context(IDS).injected)


def test_a_cache_of_other_loops_is_told():
    model = tiny_model(num_prelude_layers=1)
    cache = model(IDS, use_cache=True, num_loops=2).past_key_values
    with pytest.raises(InputError, match="same num_loops"):
        model(IDS[:, :1], cache=cache, num_loops=3)


def test_noise_is_a_draw_per_position_and_survives_saving(tmp_path):
    model = tiny_model(injection="add", initial_state="noise")
    h = model.embed(IDS)
    assert torch.equal(h[0], h[1]) and not torch.equal(h[0, 0], h[0, 1]) and 0.8 < h.std() < 1.2
    shifted = torch.arange(3, 15)[None]
    assert torch.equal(model.embed(IDS, model.context(IDS, position_ids=shifted))[:, :9], h[:, 3:])
    model.save_pretrained(tmp_path)
    again = LoopedForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert not any("draws" in name for name in model.state_dict())


def test_noise_begins_anew_behind_its_last_position():
    model = tiny_model(injection="add", initial_state="noise", position_embedding="rope")
    far = model.embed(IDS, model.context(IDS, position_ids=torch.arange(48, 60)[None]))
    assert torch.equal(far, model.embed(IDS))


@pytest.mark.parametrize("state", ["zeros", "noise"])
def test_loops_that_never_see_their_input_are_refused(state):
    with pytest.raises(InputError, match=f"initial_state '{state}' starts the loops without their input"):
        tiny_config(initial_state=state, num_prelude_layers=1)
    with pytest.raises(InputError, match="num_prelude_layers is -1"):
        tiny_config(num_prelude_layers=-1)


@pytest.mark.parametrize("fields", [{}, {"initial_state": "zeros"}, {"initial_state": "noise"}])
def test_every_parameter_before_the_loops_learns(fields):
    model = tiny_model(**WITH_INJECTION, **fields).double().train()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(gradient.any() for name, gradient in gradients.items())
    model.zero_grad()
    model.checkpoint_loops = True
    model(IDS, labels=IDS).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_the_prelude_counts_once_in_the_formula():
    with_one, without = (formula_flops(tiny_config(num_prelude_layers=n), 12) for n in (1, 0))
    assert with_one.at_exit(3) - without.at_exit(3) == without.step / 2
