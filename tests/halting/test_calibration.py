import itertools
import math

import pytest
import torch

from loopscale.errors import InputError
from loopscale.evaluate import (
    RULES,
    ExitTrace,
    MeanLoops,
    RelativePerplexity,
    calibrate,
    evaluate_halting,
    oracle,
    trace_exits,
)
from loopscale.halting.calibration import select
from loopscale.stepping import run_loops
from tests.evaluate.models import Injecting, text
from tests.helpers import tiny_model

RULE = RULES["entropy"]
K, SEQ = 4, 8


def subset(trace, index):
    """The trace of some windows."""
    scores = {name: values[:, index] for name, values in trace.scores.items()}
    return ExitTrace(trace.losses[:, index], trace.scored[index], scores)


def simulated(windows, seed, noise=0.3):
    """Exits that get better with depth, by a gap that differs between windows and tokens; scores know it in part."""
    g = torch.Generator().manual_seed(seed)
    gap = torch.rand(windows, 1, generator=g) * 0.3 * torch.rand(windows, SEQ, generator=g)
    deeper = torch.tensor([1.0, 0.4, 0.1, 0.0])[:, None, None]
    losses = 2 + torch.randn(windows, SEQ, generator=g) + gap * deeper + 0.1 * torch.randn(K, windows, SEQ, generator=g)
    scores = -(gap * deeper)[:-1] + noise * 0.1 * torch.randn(K - 1, windows, SEQ, generator=g)
    return ExitTrace(losses, torch.ones(windows, SEQ, dtype=torch.bool), {RULE.name: scores})


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("target", [RelativePerplexity(1.01), MeanLoops(2.5)], ids=str)
def test_targets_are_kept_on_the_test_split(target, level):
    pool = simulated(400, seed=0)
    kept, loops = {0.99: 0, 0.01: 0}, []
    for seed in range(10):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        for confidence in kept:
            found = calibrate(subset(pool, order[:200]), RULE, target, level, confidence)
            result = evaluate_halting(subset(pool, order[200:]), found)
            kept[confidence] += result.kept
            assert found.possible
            if confidence == 0.99:
                loops.append(result.selected_loops.value)
    assert kept[0.99] >= 9
    assert kept[0.01] < kept[0.99] or not target.bounds_loss  # without a margin, chance decides
    assert sum(loops) / 10 < K - 0.2  # it is not kept by saving nothing


def test_a_target_that_no_threshold_meets_is_said_to_be_so():
    trace = simulated(50, seed=1)
    never_first = {RULE.name: trace.scores[RULE.name].clone()}
    never_first[RULE.name][0] = -math.inf
    trace = ExitTrace(trace.losses, trace.scored, never_first)
    found = calibrate(trace, RULE, MeanLoops(1.5))
    assert not found.possible
    assert "cannot meet mean loops 1.5" in found.note
    assert found.rule.threshold == math.inf
    assert not evaluate_halting(trace, found).kept
    assert calibrate(trace, RULE, MeanLoops(2.0)).possible  # all windows at exit 2, whatever they score


def test_a_rule_that_knows_nothing_saves_nothing_and_says_so():
    trace = simulated(60, seed=2)
    worse = trace.losses.clone()
    worse[:-1] += 1
    found = calibrate(ExitTrace(worse, trace.scored, trace.scores), RULE, RelativePerplexity(1.01))
    assert found.possible
    assert "full depth only" in found.note


def dominated(windows=100, seed=0):
    """A model whose exit 1 is bad, exit 2 best and deeper ones a little worse; its scores fall with depth."""
    trace = simulated(windows, seed)
    worse = torch.tensor([0.5, -0.02, 0.0, 0.0])[:, None, None]
    scores = torch.rand(K - 1, windows, SEQ, generator=torch.Generator().manual_seed(seed))
    base = trace.losses[-1:].expand(K, -1, -1)
    return ExitTrace(base + worse, trace.scored, {RULE.name: scores, "fixed_exit": torch.zeros_like(scores)})


def test_the_search_goes_on_past_what_fails_and_a_rule_may_become_a_fixed_exit():
    """Thresholds that let some tokens out at exit 1 fail; a later first exit, or a fixed one, is found behind them."""
    trace = dominated()
    found = calibrate(trace, RULE, RelativePerplexity(1.01), "token")
    assert found.rule.first_exit == 2 and "is never adaptive, always exit 2" in found.note
    result = evaluate_halting(dominated(seed=1), found)
    assert result.always == 2 and result.kept
    fixed = calibrate(trace, RULES["fixed_exit"], RelativePerplexity(1.01))
    assert evaluate_halting(trace, fixed).executed_loops.value == 2


def test_a_rule_that_knows_something_beats_the_fixed_exit():
    """Half of the tokens are as good at exit 1, and the score tells which."""
    trace = dominated(400)
    easy = torch.rand(400, SEQ, generator=torch.Generator().manual_seed(5)) < 0.5
    losses, scores = trace.losses.clone(), trace.scores[RULE.name].clone()
    losses[0] = torch.where(easy, losses[1], losses[0])
    scores[0] = easy.float()
    scores[1] = 2.0
    trace = ExitTrace(losses, trace.scored, {RULE.name: scores})
    result = evaluate_halting(trace, calibrate(trace, RULE, RelativePerplexity(1.01), "token"))
    assert result.always is None and result.selected_loops.value == pytest.approx(1.5, abs=0.05) and result.kept


def test_a_model_of_one_loop_has_nothing_to_choose():
    trace = simulated(10, seed=3)
    flat = ExitTrace(trace.losses[-1:], trace.scored, {RULE.name: torch.empty(0, 10, SEQ)})
    result = evaluate_halting(flat, calibrate(flat, RULE, RelativePerplexity(1.01)))
    assert result.selected_loops.value == result.executed_loops.value == 1


def test_selection_is_the_first_exit_that_reaches_the_threshold():
    scores = torch.tensor([0.0, 5.0, 1.0])[:, None, None]
    assert [int(select(scores, threshold, 1)) for threshold in (-1.0, 1.0, 5.0, 6.0)] == [0, 1, 1, 3]
    assert [int(select(scores, threshold, 1, 3)) for threshold in (-1.0, 1.0, 5.0, 6.0)] == [2, 2, 3, 3]
    assert int(select(scores, -1.0, 1, 4)) == 3


def test_executed_loops_wait_for_the_last_token():
    trace = simulated(30, seed=4)
    found = calibrate(trace, RULE, MeanLoops(2.5), "token")
    result = evaluate_halting(trace, found)
    depths = select(trace.scores[RULE.name], found.rule.threshold, SEQ, found.rule.first_exit)
    assert result.executed_loops.value == pytest.approx((depths.amax(-1) + 1).double().mean().item())
    assert result.executed_loops.value > result.selected_loops.value + 0.2
    assert result.selected_loops.low <= result.selected_loops.value <= result.selected_loops.high


def test_the_oracle_bounds_every_choice():
    trace = simulated(5, seed=5)
    sums = trace.losses.double().sum(-1)
    choices = []
    for depths in itertools.product(range(K), repeat=5):
        loss = sum(sums[k, i] for i, k in enumerate(depths)) - sums[-1].sum()
        choices.append((math.exp(loss / (5 * SEQ)), sum(depths) / 5 + 1))
    for factor in (1.0, 1.01, 1.03, 2.0):
        bound = oracle(trace, RelativePerplexity(factor))
        best = min(loops for quality, loops in choices if quality <= factor)
        assert best - 1 <= bound.selected_loops <= best + 1e-9  # a mixture may lie below the best single choice
        assert bound.relative_perplexity <= factor + 1e-9
    for loops in (1.0, 1.6, 2.4, 4.0):
        bound = oracle(trace, MeanLoops(loops))
        assert bound.relative_perplexity <= min(q for q, depth in choices if depth <= loops + 1e-9) + 1e-9
        assert bound.selected_loops <= loops + 1e-6


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_no_rule_beats_the_oracle(level):
    trace = simulated(100, seed=6)
    for target in (RelativePerplexity(1.01), MeanLoops(2.0)):
        result = evaluate_halting(trace, calibrate(trace, RULE, target, level))
        bound = oracle(trace, target, level)
        if target.bounds_loss:
            assert bound.selected_loops <= result.selected_loops.value
        else:
            assert bound.relative_perplexity <= result.relative_perplexity.value


def test_the_trace_holds_each_exits_loss_and_score():
    model, windows = tiny_model(num_loops=4), text(windows=7)
    rules = [RULES["kl"], RULES["state_change"]]
    trace = trace_exits(model, windows.split(3), rules)
    assert trace.losses.shape == (4, 7, 12)
    for k in range(1, 5):
        out = model(windows[:, :-1], shift_labels=windows[:, 1:], num_loops=k)
        assert trace.losses[k - 1].mean().item() == pytest.approx(out.loop_losses[:, -1].mean().item(), rel=1e-5)
    with torch.no_grad():
        first, second = list(run_loops(model, windows[:, :-1], 2))
    change = -(second - first).norm(dim=-1) / second.norm(dim=-1)
    torch.testing.assert_close(trace.scores["state_change"][1], change, rtol=1e-5, atol=1e-6)
    assert (trace.scores["kl"][0] == -math.inf).all()


def test_bad_input_is_named():
    with pytest.raises(InputError, match="no exit gate"):
        trace_exits(Injecting(), [text()], [RULES["exit_gate"]])
    with pytest.raises(InputError, match="one length"):
        trace_exits(tiny_model(), [text(length=12), text(length=9)], [RULE])
    with pytest.raises(InputError, match="at least 2"):
        calibrate(simulated(1, 0), RULE, MeanLoops(2.0))
    with pytest.raises(InputError, match=r"0\.9"):
        RelativePerplexity(0.9)
    with pytest.raises(InputError, match=r"0\.5"):
        MeanLoops(0.5)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_an_oracle_of_an_exploding_exit_is_finite_or_infinite_and_no_overflow(level):
    trace = simulated(4, seed=0)
    exploding = ExitTrace(trace.losses * torch.tensor([1e4, 1e3, 1.0, 1.0])[:, None, None], trace.scored, trace.scores)
    assert oracle(exploding, RelativePerplexity(1.01), level).relative_perplexity == pytest.approx(1.01, rel=0.02)
    assert oracle(exploding, MeanLoops(1.0), level).relative_perplexity == math.inf
    broken = exploding.losses.clone()
    broken[1, 2, 3], broken[0, 0] = math.nan, math.inf
    found = oracle(ExitTrace(broken, trace.scored, trace.scores), RelativePerplexity(1.01), level)
    assert found.relative_perplexity == pytest.approx(1.01, rel=0.02) and 1 <= found.selected_loops <= 4
    broken[-1, 0, 0] = math.nan
    assert math.isnan(oracle(ExitTrace(broken, trace.scored, trace.scores), MeanLoops(2.0), level).relative_perplexity)
