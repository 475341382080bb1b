"""A calibrated rule asked exit after exit says what it says of a whole trace."""

import pytest
import torch

from loopscale import run_loops
from loopscale.decode import early_exit_generate
from loopscale.halting import RULES, CalibratedRule, Exit
from tests.helpers import tiny_model


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"fixed_exit"}))
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
        late = CalibratedRule(RULES[name], threshold, "token", 3, first_exit=3).watch(model)
        stopped = [late(k, z, lambda k=k, z=z: model.readout(z, k)) for k, z in enumerate(states)]
    assert not any(found.any() for found in stopped[:2]) and torch.equal(stopped[2], watched[2] >= threshold)
    assert 0 < (watched[-1] >= threshold).float().mean() < 1


def test_a_fixed_exit_decodes_at_its_depth():
    model, prompt = tiny_model().double(), torch.randint(0, 31, (1, 5))
    rule = CalibratedRule(RULES["fixed_exit"], -1.0, "token", 3, first_exit=2)
    found = early_exit_generate(model, prompt, max_new_tokens=6, rule=rule).sequences
    with torch.no_grad():
        expected = model(found, num_loops=2).logits.argmax(-1)
    assert torch.equal(expected[0, 5:-1], found[0, 6:])


def test_a_gate_that_reads_what_a_loop_received_is_watched_while_decoding():
    model = tiny_model(exit_gate=True, injection="linear", recurrence="gated").double()
    prompt = torch.randint(0, 31, (1, 5))
    with torch.no_grad():
        left = model(prompt, labels=prompt).exit_probabilities.cumsum(-1)
        threshold = float(left[..., :2].median())
    rule = CalibratedRule(RULES["exit_gate"], threshold, "token", 3)
    found = early_exit_generate(model, prompt, max_new_tokens=12, rule=rule).sequences
    with torch.no_grad():
        out = model(found, output_states=True)
        depth = (out.exit_probabilities.cumsum(-1) >= threshold).long().argmax(-1)  # of the first exit that lets go
        exits = torch.stack([model.readout(z, k).argmax(-1) for k, z in enumerate(out.states)])
    assert len(depth[0, 5:-1].unique()) > 1
    assert torch.equal(exits.gather(0, depth[None])[0, 0, 5:-1], found[0, 6:])
