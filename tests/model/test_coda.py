"""Layers before a readout: they belong to it, run for every exit that is read, and have slots for each of those."""

import pytest
import torch
from transformers.cache_utils import DynamicCache, StaticCache

from loopscale import InputError
from loopscale.call import Call
from loopscale.evaluate import formula_flops
from loopscale.facts import Reads
from tests.helpers import tiny_config, tiny_model

IDS = torch.arange(24).view(2, 12) * 7 % 31
WHOLE = {"num_prelude_layers": 1, "num_coda_layers": 2, "injection": "linear"}


def test_the_coda_is_layers_of_the_same_kind_behind_the_stack():
    model, plain = tiny_model(num_coda_layers=2, num_loops=1).double(), tiny_model(num_stack_layers=4, num_loops=1)
    renamed = {
        name.replace("layers.2", "coda.0").replace("layers.3", "coda.1"): weight
        for name, weight in plain.state_dict().items()
    }
    model.load_state_dict(renamed)
    torch.testing.assert_close(model(IDS).logits, plain.double()(IDS).logits)
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    assert model.num_parameters() == tiny_model().num_parameters() + 2 * layer


@pytest.mark.parametrize(("coda_input", "readout"), [("state", "rmsnorm"), ("readout", "rmsnorm"), ("linear", "raw")])
def test_what_the_coda_receives_is_what_its_equation_says(coda_input, readout):
    model = tiny_model(**WHOLE, coda_input=coda_input, readout=readout).double()
    torch.nn.init.normal_(model.readout_norm.norm.weight) if readout == "rmsnorm" else None
    if coda_input == "linear":
        torch.testing.assert_close(model.coda_input.map.weight, torch.eye(16).double())
        torch.nn.init.normal_(model.coda_input.map.weight)
    read = model.readout_norm.norm if readout == "rmsnorm" else lambda z: z
    out = model(IDS, labels=IDS, output_states=True)
    context = model.context(IDS)
    for k, z in enumerate(out.states):
        x = {"state": lambda z: z, "readout": read, "linear": model.coda_input}[coda_input](
            z, *([read] if coda_input == "linear" else [])
        )
        for layer in model.model.coda:
            x, _ = layer(x, 0, context)
        expected = model.lm_head(read(x))
        torch.testing.assert_close(model.readout(z, k, context), expected)
        losses = torch.nn.functional.cross_entropy(expected[:, :-1].mT, IDS[:, 1:], reduction="none")
        torch.testing.assert_close(out.loop_losses[:, k], losses.mean(1))
    torch.testing.assert_close(out.logits, expected)


@pytest.mark.parametrize(("supervision", "read"), [("per_loop", 3), ("terminal", 1), ("exit_gate", 3)])
def test_a_training_step_runs_the_coda_for_the_exits_that_the_loss_sees(supervision, read):
    model, runs = tiny_model(**WHOLE, supervision=supervision).double().train(), []
    model.model.coda[1].register_forward_hook(lambda *_: runs.append(1))
    model(IDS, labels=IDS, supervised_exits_only=True)
    assert len(runs) == read
    model(IDS, labels=IDS)
    assert len(runs) == read + 3  # every exit, and none of them twice for the logits
    model.eval()(IDS)
    assert len(runs) == read + 4


@pytest.mark.parametrize("coda_input", ["state", "readout"])
def test_checkpointed_loops_and_codas_have_the_same_gradient(coda_input):
    model, gradients = tiny_model(**WHOLE, coda_input=coda_input).double().train(), []
    for model.checkpoint_loops in (False, True):
        model.zero_grad()
        model(IDS, labels=IDS, gradient_loops=2).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.any(), name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_plain_readout_says_what_it_lacks():
    model = tiny_model(num_coda_layers=1)
    z = model.step(model.embed(IDS), 0)
    with pytest.raises(InputError, match=r"hand it to readout as `context`"):
        model.readout(z, 0)
    torch.testing.assert_close(model.readout(z, 0, model.context(IDS)), model(IDS, num_loops=1).logits)


def test_rows_leave_a_call_and_are_read_in_it():
    call = Call(tiny_model(**WHOLE), IDS)
    z = list(call.states(2))[1]
    torch.testing.assert_close(call.rows(torch.tensor([1])).readout(z[1:], 1), call.readout(z, 1)[1:])
    read = Reads(call).readings["trained"](z, 1, IDS)
    expected = torch.nn.functional.cross_entropy(call.readout(z, 1).mT, IDS, reduction="none")
    torch.testing.assert_close(read, expected)


@pytest.mark.parametrize("labels", [None, IDS])
def test_hidden_states_are_those_of_the_last_exit(labels):
    model = tiny_model(**WHOLE, attn_implementation="eager")
    out = model(IDS, labels=labels, output_hidden_states=True, output_attentions=True, output_states=True)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1 == 1 + 1 + 3 * 2 + 2
    assert len(out.attentions) == 9
    torch.testing.assert_close(out.hidden_states[7], out.states[-1])
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)


def test_exits_read_on_a_cache_are_those_of_the_whole_text():
    model = tiny_model(**WHOLE).double()
    whole = model(IDS, labels=IDS)
    first = model(IDS[:, :7], labels=IDS[:, :7])
    rest = model(IDS[:, 7:], shift_labels=torch.cat([IDS[:, 8:], IDS[:, :1]], 1), cache=first.past_key_values)
    torch.testing.assert_close(rest.logits, whole.logits[:, 7:])
    z = model(IDS, output_states=True).states
    losses = [
        torch.nn.functional.cross_entropy(
            model.readout(z[k], k, model.context(IDS))[:, 7:].mT, torch.cat([IDS[:, 8:], IDS[:, :1]], 1)
        )
        for k in range(3)
    ]
    torch.testing.assert_close(rest.loop_losses.mean(0), torch.stack(losses))


def test_an_exit_that_a_cache_knows_too_little_of_is_refused():
    model = tiny_model(**WHOLE)
    cache = model(IDS, use_cache=True).past_key_values
    with pytest.raises(InputError, match="no slots for the coda of exit 1: hand over a `DynamicCache"):
        model(IDS[:, :1], labels=IDS[:, :1], cache=cache)
    growing = model(IDS, cache=DynamicCache()).past_key_values
    with pytest.raises(InputError, match="the coda of exit 1 has seen 0 of them: read the same exits in every call"):
        model(IDS[:, :1], labels=IDS[:, :1], cache=growing)
    static = StaticCache(config=model.config, max_cache_len=16)
    with pytest.raises(InputError, match="no slots for the coda of exit 1"):
        model(IDS, labels=IDS, cache=static)
    context = model.context(IDS[:, :1], cache=growing, num_loops=3)
    with pytest.raises(InputError, match="the coda of exit 5 has no slots in this call's cache"):
        model.readout(torch.zeros(2, 1, 16), 4, context)
    with pytest.raises(InputError, match="has 5 slots, one per layer and loop, too few for this call"):
        model(IDS, cache=DynamicCache(config=model.config.at_depth(1)))


@pytest.mark.parametrize("loops", [2, 4])
def test_a_cache_of_other_loops_is_refused(loops):
    model = tiny_model(**WHOLE)
    for cache in (
        DynamicCache(),
        DynamicCache(config=model.config),
        StaticCache(config=model.config, max_cache_len=16),
    ):
        model(IDS, cache=cache)
        for _ in range(2):  # the first refusal changes nothing
            with pytest.raises(InputError, match=r"same num_loops|too few for this call"):
                model(IDS[:, :1], cache=cache, num_loops=loops)
        model(IDS[:, :1], cache=cache)


def test_a_coda_input_without_a_coda_is_refused():
    with pytest.raises(InputError, match="coda_input is 'readout', and there are no layers"):
        tiny_config(coda_input="readout")
    with pytest.raises(InputError, match="num_coda_layers is -1"):
        tiny_config(num_coda_layers=-1)


def test_the_coda_counts_once_in_the_formula_of_an_exit():
    with_two, without = (formula_flops(tiny_config(num_coda_layers=n), 12) for n in (2, 0))
    assert with_two.at_exit(3) - without.at_exit(3) == without.step


def test_what_layers_add_up_to_goes_by_how_often_they_run():
    model = tiny_model(num_prelude_layers=1, num_coda_layers=4, residual={"kind": "scaled", "weight": 2.0})
    shares = [group[0].mlp_residual.share for group in (model.model.prelude, model.model.layers, model.model.coda)]
    assert shares == pytest.approx([2.0, 2.0 / (3 * 2**0.5), 1.0])
    deep = tiny_model(num_prelude_layers=1, num_coda_layers=4, residual="deepnorm")
    gains = {layer.mlp_residual.stream_gain for layer in (deep.model.prelude[0], *deep.model.layers, *deep.model.coda)}
    assert gains == {(2 * (1 + 3 * 2 + 4)) ** 0.5}
