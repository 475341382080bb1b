import math

import pytest
import torch

from loopscale.errors import InputError
from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    evaluate_halting,
    halted_exits,
    halted_logits,
    time_halting,
    trace_exits,
)
from loopscale.halting import Calibration, MeanLoops
from loopscale.halting.calibration import select
from tests.evaluate.models import Injecting, text
from tests.helpers import tiny_model

LOOPS = 4


def _middle(trace, rule, level):
    """Return a threshold that stops some and not others."""
    scores = trace.level_scores(rule.name, level)
    return CalibratedRule(rule, scores[scores.isfinite()].median().item(), level, LOOPS)


def _models():
    ours = {name: tiny_model(num_loops=LOOPS, exit_gate=True, **over) for name, over in VARIANTS.items()}
    return {**ours, "injecting": Injecting(num_loops=LOOPS)}


VARIANTS = {
    "plain": {},
    "rope, raw": {"position_embedding": "rope", "readout": "raw"},
    "reads input and state again": {"injection": "linear", "recurrence": "gated"},
}


def _exits(model, ids):
    """Return the logits of every exit, without what is tested here."""
    if not isinstance(model, Injecting):
        return [model(ids, num_loops=k + 1).logits for k in range(LOOPS)]
    full, h = [], model.embed(ids)
    for k in range(LOOPS):
        z = model.step(h, k)
        full.append(model.readout(z, k))
        h = model.carry(z, k)
    return full


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", sorted(RULES.keys() - {"fixed_exit"}))
@pytest.mark.parametrize("which", [*VARIANTS, "injecting"])
def test_every_token_leaves_once_with_the_logits_of_its_exit(which, name, level):
    model, rule, windows = _models()[which], RULES[name], text(windows=9)
    if not rule.applies_to(model):
        return
    trace = trace_exits(model, [windows], [rule])
    calibrated = _middle(trace, rule, level)
    ids = windows[:, :-1]
    times_left = torch.zeros_like(ids)
    with torch.no_grad():
        depths = select(trace.level_scores(name, level), calibrated.threshold, ids.shape[1])
        assert 1 < len(depths.unique()) <= LOOPS
        full = _exits(model, ids)
        for left in halted_exits(model, ids, calibrated):
            times_left[left.rows] += left.tokens
            assert (depths[left.rows][left.tokens] == left.k).all()
            torch.testing.assert_close(
                left.logits[left.tokens], full[left.k][left.rows][left.tokens], rtol=1e-4, atol=1e-4
            )
        assert (times_left == 1).all()
        expected = torch.stack(full).gather(0, depths[None, ..., None].expand(-1, -1, -1, 31))[0]
        torch.testing.assert_close(halted_logits(model, ids, calibrated), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_halted_rows_leave_the_batch(level):
    model, windows, rule = Injecting(num_loops=LOOPS), text(windows=20), RULES["state_change"]
    trace = trace_exits(model, [windows], [rule])
    calibrated = _middle(trace, rule, level)
    result = evaluate_halting(trace, Calibration(calibrated, MeanLoops(2.0), True, ""))
    model.rows_stepped = 0
    with torch.no_grad():
        list(halted_exits(model, windows[:, :-1], calibrated))
    assert model.rows_stepped == round(result.executed_loops.value * 20)
    (timed,) = time_halting(model, windows[:, :-1], [calibrated], batch_size=7, repeats=1)
    assert timed.executed_loops == pytest.approx(result.executed_loops.value)
    assert timed.selected_loops == pytest.approx(result.selected_loops.value)
    assert timed.loop_saving == pytest.approx(1 - result.executed_loops.value / LOOPS)
    assert (timed.windows, timed.batch_size, timed.repeats) == (20, 7, 1)


def test_a_rule_that_reads_no_logits_decodes_only_what_leaves(monkeypatch):
    model, windows = Injecting(num_loops=LOOPS), text(windows=10)
    decoded = []
    readout = model.readout
    monkeypatch.setattr(model, "readout", lambda z, k: decoded.append(len(z)) or readout(z, k))
    trace = trace_exits(model, [windows], [RULES["state_change"]])
    decoded.clear()
    with torch.no_grad():
        list(halted_exits(model, windows[:, :-1], _middle(trace, RULES["state_change"], "sequence")))
    assert sum(decoded) == 10


@pytest.mark.parametrize("name", ["entropy", "state_change"])
def test_a_rule_that_never_stops_costs_nothing(name, monkeypatch):
    model, windows = Injecting(num_loops=LOOPS), text()
    monkeypatch.setattr(type(RULES[name]), "scores", lambda *_: pytest.fail("scored"))
    with torch.no_grad():
        (left,) = halted_exits(model, windows[:, :-1], CalibratedRule(RULES[name], math.inf, "sequence", LOOPS))
    assert left.k == LOOPS - 1 and left.tokens.all()


@pytest.mark.parametrize(("name", "decoded"), [("fixed_exit", 5), ("entropy", 5), ("kl", 10)])
def test_exits_before_the_first_are_only_looked_at_to_compare_with(name, decoded, monkeypatch):
    model, windows, rows = Injecting(num_loops=LOOPS), text(windows=5), []
    readout = model.readout
    monkeypatch.setattr(model, "readout", lambda z, k: rows.append(len(z)) or readout(z, k))
    rule = CalibratedRule(RULES[name], -1e30, "token", LOOPS, first_exit=3)
    with torch.no_grad():
        (left,) = halted_exits(model, windows[:, :-1], rule)
    assert (left.k, sum(rows)) == (2, decoded)


def test_rules_of_different_depths_are_not_timed_together():
    rules = [CalibratedRule(RULES["kl"], 0.0, "token", loops) for loops in (3, 4)]
    with pytest.raises(InputError, match="one depth"):
        time_halting(Injecting(), text()[:, :-1], rules, 2)
