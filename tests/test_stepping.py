from typing import Any

import pytest
import torch

from loopscale import InputError, continue_loops, run_loops
from loopscale.call import Call
from loopscale.stepping import Context, FourFunctions, InContext, with_context
from tests.adapters.toy_loop import VOCAB, ToyLoop
from tests.helpers import tiny_model

IDS = torch.arange(40).view(4, 10) % min(31, VOCAB)


class Plain:
    """Four functions of a looped model of ours, as a stranger would write them."""

    def __init__(self, model):
        self.model, self.num_loops, self.embedded = model, model.num_loops, []

    def embed(self, input_ids):
        self.embedded.append(input_ids)
        return self.model.embed(input_ids)

    def step(self, h, k):
        return self.model.step(h, k)

    def carry(self, z, k):
        return self.model.carry(z, k)

    def readout(self, z, k):
        return self.model.readout(z, k)


def states_of(verbs, context, num_loops):
    return list(continue_loops(verbs, verbs.embed(context.tokens, context), 0, num_loops, context))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Plain(tiny_model()),
        lambda: tiny_model(position_embedding="rope"),
        lambda: tiny_model(recurrence="mixing", injection="add"),
        lambda: ToyLoop().eval(),
    ],
    ids=["four functions", "rope", "injected, k and h read", "live"],
)
@pytest.mark.usefixtures("mechanisms")
def test_rows_leave_a_call_without_changing_the_others(build):
    verbs = with_context(build())
    context = verbs.context(IDS)
    states = states_of(verbs, context, 3)
    for index in (torch.tensor([2, 0]), torch.tensor([False, True, False, True])):
        some = verbs.rows(context, index)
        for whole, part in zip(states, states_of(verbs, some, 3), strict=True):
            torch.testing.assert_close(part, whole[index])
        torch.testing.assert_close(
            verbs.readout(states[2][index], 2, some), verbs.readout(states[2], 2, context)[index]
        )


def test_any_model_has_one_signature():
    model = tiny_model()
    ours, theirs = with_context(model), with_context(Plain(model))
    assert isinstance(ours, InContext) and isinstance(theirs, FourFunctions)
    assert with_context(ours) is ours
    for one, other in zip(run_loops(ours, IDS, 4), run_loops(theirs, IDS, 4), strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_with_four_functions_is_told_of_the_rows_that_stay():
    model = Plain(tiny_model())
    verbs = with_context(model)
    verbs.rows(verbs.context(IDS), torch.tensor([1]))
    assert torch.equal(model.embedded[-1], IDS[1:2])


def test_a_window_of_that_name_is_no_context():
    model: Any = Plain(tiny_model())
    model.context = 1024
    assert isinstance(with_context(model), FourFunctions)


def test_rows_stay_where_a_cache_keeps_them():
    with pytest.raises(InputError, match="rows cannot leave a call with a cache"):
        Context(IDS, cache=tiny_model()(IDS, use_cache=True).past_key_values).rows(torch.tensor([0]))


@pytest.mark.usefixtures("mechanisms")
def test_plain_calls_say_what_they_lack():
    model = tiny_model(injection="add", recurrence="mixing")
    h = model.embed(IDS)
    with pytest.raises(InputError, match="reads its input again in every loop: make context"):
        model.step(h, 0)
    context = model.context(IDS)
    z = model.step(h, 0, context)
    with pytest.raises(InputError, match="reads what the loop received"):
        model.carry(z, 0, context)
    assert model.carry(z, 0, context, h).shape == z.shape


@pytest.mark.usefixtures("mechanisms")
def test_a_call_is_four_plain_functions_of_any_model():
    for model in (
        tiny_model(recurrence="mixing", injection="add", num_coda_layers=1),
        ToyLoop().eval(),
        Plain(tiny_model()),
    ):
        call = Call(model, IDS)
        states = list(call.states(4))
        for one, other in zip(states, run_loops(model, IDS, 4), strict=True):
            torch.testing.assert_close(one, other)
        some = call.rows(torch.tensor([1, 3]))
        torch.testing.assert_close(some.carry(states[3][[1, 3]], 3), call.carry(states[3], 3)[[1, 3]])
        torch.testing.assert_close(some.readout(states[3][[1, 3]], 3), call.readout(states[3], 3)[[1, 3]])


def test_a_context_moves_to_a_device():
    model = tiny_model(position_embedding="rope", injection="add")
    moved = model.context(torch.ones(1, 4, dtype=torch.long), torch.tensor([[0, 1, 1, 1]])).to("meta")
    assert all(x.is_meta for x in (moved.tokens, moved.injected, moved.attention_mask, moved.positions, *moved.rotary))
    assert moved.cache is None
