"""Relaxation: what of a loop's work its state holds."""

import pytest
import torch

from loopscale import InputError
from loopscale.audit import audit, scale, static_verdict
from loopscale.model import RELAXATIONS
from tests.helpers import tiny_model

IDS = torch.arange(24).view(2, 12) * 7 % 31
OTHER = torch.arange(24).view(2, 12) * 5 % 31


def states(model, ids, loops=3):
    return model(ids, num_loops=loops, output_states=True).states


def test_a_fixed_relaxation_goes_a_part_of_the_way():
    model = tiny_model(relaxation={"kind": "fixed", "factor": 0.25}).double()
    context = model.context(IDS)
    h = model.embed(IDS, context)
    whole = tiny_model().double()
    whole.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.step(h, 0, context) - h, (whole.step(h, 0, whole.context(IDS)) - h) / 4)


@pytest.mark.parametrize("kind", ["learned", "blind"])
def test_later_loops_of_a_mixed_model_start_without_effect_and_learn(kind):
    model = tiny_model(relaxation=kind).double()
    first, *later = states(model, IDS)
    assert all(torch.equal(first, z) for z in later)
    model(IDS, labels=IDS).loss.backward()
    assert model.model.relaxation.mixing.grad.abs() > 0
    with torch.no_grad():
        model.model.relaxation.mixing.fill_(0.5 / model.model.relaxation.arguments.rate)
    assert not torch.allclose(*states(model, IDS)[1:])


def test_a_blind_loop_works_on_other_noise_than_the_loops_start_from():
    model = tiny_model(relaxation={"kind": "blind", "initial": 0.5}, initial_state="noise", injection="linear")
    first, second, _ = states(model, IDS)
    assert not torch.allclose(first, second)


def test_what_later_blind_loops_compute_is_the_same_for_every_text():
    for kind, is_blind in (("learned", False), ("blind", True)):
        model = tiny_model(relaxation={"kind": kind, "initial": 0.5}).double()
        work = []
        for ids in (IDS, OTHER):
            first, second, _ = states(model, ids)
            work.append(2 * second - first)  # S of what the second loop worked on
        assert torch.allclose(*work) == is_blind


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("residual", ["pre", "post_add"])
def test_static_and_measured_verdicts_agree(relaxation, residual):
    model = tiny_model(relaxation=relaxation, residual=residual, rms_norm_eps=0.0, num_stack_layers=1).double()
    expected = static_verdict(model.config)["scale"]
    found = audit(model, [IDS], coordinates=[scale]).coordinates["scale"]
    if expected.verdict != "undecided":
        assert (found.verdict, found.removed_by) == (expected.verdict, expected.removed_by)
    else:
        assert relaxation != "full"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"kind": "fixed", "factor": 0.0}, "above 0 and up to 1"),
        ({"kind": "learned", "initial": 2.0}, "from -1 to 1"),
        ({"kind": "blind", "rate": 0.0}, "above 0"),
        ("fix", "did you mean 'fixed'"),
    ],
)
def test_bad_arguments_are_told(value, told):
    with pytest.raises(InputError, match=told):
        tiny_model(relaxation=value)
