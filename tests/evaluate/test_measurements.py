import json
import math

import pytest

from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    MeanLoops,
    RelativePerplexity,
    counted_flops,
    depth_curve,
    frontier,
    measure_depth,
    run_depth,
    run_halting,
    token_flops,
)
from loopscale.evaluate.display import safe_sentence
from loopscale.storage import plain, to_json
from tests.evaluate.models import Injecting, text
from tests.helpers import tiny_model


def test_run_depth_is_the_curve_with_costs():
    model, windows = tiny_model(), text()
    found = json.loads(to_json(run_depth(model, windows.split(2), repeats=1)))
    curve, flops = depth_curve(model, windows.split(2)), token_flops(model, windows[:1, :-1])
    exits = found["trained"]["exits"]
    assert [e["perplexity"] for e in exits] == pytest.approx([p.perplexity for p in curve])
    assert [e["flops"] for e in exits] == [flops.at_exit(k) for k in range(1, 10)]
    assert [e["tokens_per_second"] is None for e in exits] == [False] * 3 + [True] * 6
    assert exits[0]["batch_size"] == 2


def test_a_model_that_reads_input_and_state_again_has_its_place_in_a_frontier():
    model, windows = tiny_model(injection="linear", recurrence="gated"), text()
    measured = measure_depth(model, windows.split(2), 3, repeats=1)["trained"]
    points = frontier({"reads again": measured})
    assert [p.exit for p in points] == [1, 2, 3]
    assert [p.flops for p in points] == [token_flops(model, windows[:1, :-1]).at_exit(k) for k in (1, 2, 3)]
    for k, point in enumerate(points, 1):
        loss = model(windows[:, :-1], shift_labels=windows[:, 1:], num_loops=k).loop_losses[:, -1].mean()
        assert point.perplexity == pytest.approx(math.exp(float(loss)), rel=1e-5)
    counted = counted_flops(model, windows[:1, :-1])
    assert counted.step >= counted_flops(tiny_model(), windows[:1, :-1]).step + 2 * 2 * 16 * 16  # of the mixing matrix


def test_final_rmsnorm_is_described_under_both_readings():
    assert list(run_depth(tiny_model(readout="final_rmsnorm"), [text()], 3, repeats=1)) == ["trained", "final"]


@pytest.mark.parametrize("model", [tiny_model(exit_gate=True), Injecting()], ids=["ours", "another's"])
@pytest.mark.parametrize("target", [RelativePerplexity(1.5), MeanLoops(2.0)], ids=str)
def test_run_halting_has_a_row_per_level_and_rule(model, target):
    windows = text(windows=40)
    found = run_halting(model, [windows[:20]], [windows[20:]], target, batch_sizes=(4, 20), repeats=1)
    found = json.loads(to_json(found))
    names = [name for name, rule in RULES.items() if rule.applies_to(model) and name != "fixed_exit"]
    first, *rows = [(row["rule"]["level"], row["rule"]["rule"]) for row in found["results"]]
    assert first == ("sequence", "fixed_exit")
    assert rows == [(level, name) for level in ("sequence", "token") for name in names]
    for row in found["results"]:
        CalibratedRule.from_dict(row["rule"])
        assert 1 <= row["selected_loops"]["value"] <= row["executed_loops"]["value"] + 1e-9 <= model.num_loops + 1e-6
    assert {time["batch_size"] for time in found["times"]} <= {4, 20}
    kept = [(row["rule"]["level"], row["executed_loops"]["value"]) for row in found["results"][1:] if row["kept"]]
    best = {level: min(loops for of, loops in kept if of == level) for level, _ in kept}
    fixed, *others = [time for time in found["times"] if time["batch_size"] == 20]
    assert {time["rule"]["level"]: time["executed_loops"] for time in others} == pytest.approx(best)
    assert fixed["rule"]["rule"] == "fixed_exit" and fixed["loop_saving_over_fixed"] == 0
    for time in others:
        assert time["loop_saving_over_fixed"] == pytest.approx(1 - time["executed_loops"] / fixed["executed_loops"])
        assert time["time_saving_over_fixed"] == pytest.approx(1 - time["seconds"] / fixed["seconds"])


def test_everything_is_timed_if_asked():
    windows = text(windows=10)
    rules = [RULES["entropy"], RULES["state_change"]]
    found = run_halting(tiny_model(), [windows], [windows], rules=rules, levels=("token",), time_all=True, repeats=1)
    assert [time.rule.rule for time in found.times] == ["fixed_exit", "entropy", "state_change"]


def test_what_json_cannot_say_becomes_none():
    assert plain({"a": [1.0, math.nan], "b": (math.inf, "x")}) == {"a": [1.0, None], "b": [None, "x"]}


def test_the_safe_range_in_words():
    curve = depth_curve(tiny_model(), [text()], 9)
    sentence = safe_sentence(curve)
    safe = curve.safe_range()
    assert f"Exits {safe.first} to {safe.last} stay within 1%" in sentence
    assert "e-folds per loop" in sentence
    assert "e-folds" not in safe_sentence(depth_curve(tiny_model(), [text()], 3))


def test_no_exit_is_called_safe_by_a_curve_that_ends_before_the_trained_depth():
    sentence = safe_sentence(depth_curve(tiny_model(), [text()], 2))
    assert "ends at exit 2, before the trained depth of 3" in sentence and "stay within" not in sentence
