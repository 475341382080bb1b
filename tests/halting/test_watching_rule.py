"""A calibrated rule asked exit after exit says what it says of a whole trace."""

import pytest
import torch

from loopscale import run_loops
from loopscale.evaluate import RULES, CalibratedRule, Exit
from tests.helpers import tiny_model


@pytest.mark.parametrize("name", RULES)
def test_watching_gives_the_scores_of_the_rule(name):
    model = tiny_model(exit_gate=True)
    ids = torch.randint(0, 31, (2, 5))
    before, watched = None, []
    with torch.no_grad():
        states = list(run_loops(model, ids))
        for k, z in enumerate(states):
            now = Exit(k, z, model.readout(z, k))
            before = Exit(k, z, now.logits, RULES[name].scores(model, now, before))
            watched.append(before.scores)
        threshold = float(watched[-1].median())
        stops = CalibratedRule(RULES[name], threshold, "token", 3).watch(model)
        for k, z in enumerate(states):
            assert torch.equal(stops(k, z, lambda k=k, z=z: model.readout(z, k)), watched[k] >= threshold)
    assert 0 < (watched[-1] >= threshold).float().mean() < 1
