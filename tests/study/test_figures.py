import math
from dataclasses import replace

import pytest

from loopscale.display import write_figure
from loopscale.study import TOPICS
from loopscale.study.drawing import by_depth
from loopscale.study.grid import condition_styles
from loopscale.study.results import Failed
from loopscale.study.topics import audit
from loopscale.study.topics.worth import frontier_points

DRAW = {drawing.name: drawing.draw for topic in TOPICS for drawing in topic.figures}


def lines(canvas):
    """Return the curves by condition; the first line of a label is its name."""
    drawn = canvas.axes[0].get_lines()
    return {line.get_label().split("\n")[0]: line for line in drawn if not line.get_label().startswith("_")}


def norm_figure(results):
    return DRAW["norm-by-depth"](results)


def with_runs(results, condition, change):
    old = results.conditions[condition]
    runs = tuple(map(change, old.runs))
    return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})


def test_a_curve_is_the_mean_over_seeds(study):
    canvas = norm_figure(study(seeds=(1, 2, 3)))
    curve = lines(canvas)["per_loop-rmsnorm"]
    assert curve.get_xdata()[0] == 1 and curve.get_xdata()[-1] == 12
    assert curve.get_ydata()[3] == pytest.approx(880.0)
    assert len(canvas.axes[0].collections) == 8  # one band per condition


def test_one_seed_has_no_band(study):
    assert not norm_figure(study()).axes[0].collections


def test_the_trained_depth_is_marked_and_norms_are_logarithmic(study):
    axes = norm_figure(study()).axes[0]
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["trained depth 4"]
    assert any(list(line.get_xdata()) == [4, 4] for line in axes.get_lines())


def test_the_perplexity_axis_follows_its_range(study):
    draw = DRAW["perplexity-by-depth"]
    assert draw(study()).axes[0].get_yscale() == "log"

    def narrow(run):
        return replace(run, perplexity_by_depth=(4.0, 4.1, 4.2, 4.3))

    assert draw(with_runs(study(conditions=("per_loop-raw",)), "per_loop-raw", narrow)).axes[0].get_yscale() == "linear"


def test_conditions_are_told_apart(study):
    styles = {(line.get_color(), line.get_linestyle()) for line in lines(norm_figure(study())).values()}
    assert len(styles) == 8


def test_a_condition_of_another_grid_has_a_colour_of_its_own(study):
    results = study()
    usual = condition_styles(results)
    new = {
        name: replace(results.conditions["per_loop-raw"], model={"supervision": "per_loop", **model})
        for name, model in {
            "power": {"readout": {"kind": "power", "alpha": 0.5}},
            "taper": {"readout": "taper"},
        }.items()
    }
    styles = condition_styles(replace(results, conditions={**new, **results.conditions}))
    assert {name: styles[name] for name in usual} == usual
    assert len({style.colour for style in styles.values()}) == 7
    alone = study(conditions=("per_loop-raw",))
    assert condition_styles(alone)["per_loop-raw"] == usual["per_loop-raw"]


def test_a_curve_that_stops_being_finite_ends_in_a_cross(study):
    def blow_up(run):
        return replace(run, norm_by_depth=run.norm_by_depth[:6] + (math.inf, math.nan) * 3)

    canvas = norm_figure(with_runs(study(), "per_loop-rmsnorm", blow_up))
    curve = lines(canvas)["per_loop-rmsnorm"]
    assert [math.isfinite(value) for value in curve.get_ydata()] == [True] * 6 + [False] * 6
    assert curve.get_label() == "per_loop-rmsnorm\n(off the scale at 6 of 12 loops)"
    crosses = [line for line in canvas.axes[0].get_lines() if line.get_marker() == "x"]
    assert [list(cross.get_xdata()) for cross in crosses] == [[6]]


def test_runs_that_never_were_finite_are_named_and_drawn_without_a_crash(study, diverge, tmp_path):
    results = study(conditions=("per_loop-raw", "per_loop-rmsnorm"), seeds=(1, 2))
    results = diverge(diverge(results, "per_loop-raw"), "per_loop-rmsnorm", seed=2)
    for name in ("norm-by-depth", "perplexity-by-depth"):
        write_figure(DRAW[name](results), tmp_path / name)
    named = lines(DRAW["perplexity-by-depth"](results))
    assert {line.get_label().split("\n")[1] for line in named.values()} == {"(off the scale at 12 of 12 loops)"}


def test_curves_of_different_length_and_a_single_loop_are_drawn(study, tmp_path):
    shorter = with_runs(study(seeds=(1, 2)), "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,) * run.seed))
    write_figure(norm_figure(shorter), tmp_path / "short")
    results = replace(study(conditions=("per_loop-raw",)), num_loops=1)
    single = with_runs(results, "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,)))
    write_figure(norm_figure(single), tmp_path / "single")


def test_without_curves_there_is_no_figure(study):
    assert norm_figure(study(conditions=())) is None
    assert norm_figure(study(seeds=())) is None
    assert by_depth(study(), lambda run: (), "nothing", 1.0, 100.0) is None


def test_a_first_exit_beyond_the_scale_leaves_the_others_drawn(study, tmp_path):
    def huge(run):
        return replace(run, perplexity_by_depth=(1e300, 4.0, 3.0, math.inf if run.seed == 2 else 2.0))

    results = with_runs(study(conditions=("terminal-raw", "per_loop-raw"), seeds=(1, 2)), "terminal-raw", huge)
    canvas = DRAW["perplexity-by-depth"](
        with_runs(results, "per_loop-raw", lambda run: replace(run, perplexity_by_depth=()))
    )
    assert "per_loop-raw" not in lines(canvas)
    curve = lines(canvas)["terminal-raw"]
    assert [math.isfinite(value) for value in curve.get_ydata()] == [False, True, True, False]
    (crosses,) = [line for line in canvas.axes[0].get_lines() if line.get_marker() == "x"]
    assert list(crosses.get_xdata()) == [2, 3]
    write_figure(canvas, tmp_path / "huge")


@pytest.mark.parametrize("curve", [(math.nan,), (math.nan, 2.0), (2.0, math.nan)])
def test_the_shortest_broken_curves_are_drawn(study, tmp_path, curve):
    results = with_runs(
        study(conditions=("per_loop-raw",)), "per_loop-raw", lambda run: replace(run, norm_by_depth=curve)
    )
    canvas = norm_figure(results)
    crosses = [x for line in canvas.axes[0].get_lines() if line.get_marker() == "x" for x in line.get_xdata()]
    assert crosses == [loop for loop, value in enumerate(curve, 1) if value == 2.0]
    write_figure(canvas, tmp_path / "short")


def test_an_exit_that_explodes_does_not_set_the_axis_of_the_others(study, tmp_path):
    def explode(run):
        return replace(run, perplexity_by_depth=(*run.perplexity_by_depth[:-1], 2e26))

    canvas = DRAW["perplexity-by-depth"](with_runs(study(), "per_loop-raw", explode))
    assert canvas.axes[0].get_ylim()[1] < 1e4
    assert "(off the scale at " in lines(canvas)["per_loop-raw"].get_label()
    write_figure(canvas, tmp_path / "a")


def test_the_frontier_marks_dominated_exits_and_leaves_unusable_ones_out(measured_study, tmp_path):
    results = measured_study()
    left, right = DRAW["frontier"](results).axes
    points = frontier_points(results)
    best = min(point.perplexity for point in points)
    drawn = [y for line in left.get_lines() for y in line.get_ydata()]
    assert max(drawn) <= 1.5 * best < max(point.perplexity for point in points)
    curves = {line.get_label(): line for line in left.get_lines() if not line.get_label().startswith("_")}
    hollow = [x for line in left.get_lines() if line.get_markerfacecolor() == "none" for x in line.get_xdata()]
    filled = [x for line in curves.values() for x in line.get_xdata()[line.get_markevery()]]
    assert sorted(hollow + filled) == sorted(x for line in curves.values() for x in line.get_xdata())
    assert right.xaxis_inverted()
    write_figure(DRAW["frontier"](results), tmp_path / "frontier")


def test_the_angular_step_has_a_guide_of_slope_minus_one(measured_study, records):
    axes = DRAW["angular-step"](measured_study(seeds=(1, 2))).axes[0]
    (guide,) = (line for line in axes.get_lines() if line.get_label() == "1 / scale")
    (x, far), (y, low) = guide.get_xdata(), guide.get_ydata()
    measured = records["per_loop-rmsnorm"]["audit"].curves
    assert far / x == pytest.approx(y / low) and x == pytest.approx(measured.scale[0])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    drawn = lines(DRAW["angular-step"](measured_study()))["per_loop-raw"]
    assert drawn.get_ydata()[0] == pytest.approx(records["per_loop-raw"]["audit"].curves.angular_step[0])


def test_norms_spread_from_median_to_largest(measured_study, records):
    axes = DRAW["norm-spread"](measured_study(conditions=("per_loop-raw",))).axes[0]
    norms = records["per_loop-raw"]["audit"].norms[-1]
    assert list(axes.get_lines()[0].get_xdata()) == pytest.approx([norms.norm_median, norms.norm_max])


def test_norms_that_explode_end_at_the_edge(measured_study, with_record, tmp_path):
    def explode(record):
        return replace(record, norms=(*record.norms[:-1], replace(record.norms[-1], norm_max=1e30)))

    canvas = DRAW["norm-spread"](with_record(measured_study(), "per_loop-rmsnorm", audit.TOPIC, explode))
    assert canvas.axes[0].get_xlim()[1] < 1e10
    assert "per_loop-rmsnorm (beyond)" in [label.get_text() for label in canvas.axes[0].get_yticklabels()]
    write_figure(canvas, tmp_path / "a")


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_curves_end_where_they_are_not_finite(measured_study, with_record, tmp_path, lost):
    def broken(record):
        curves, norms = record.curves, record.norms[-1]
        short = replace(curves, scale=(*curves.scale[:5], *[lost] * 25))
        return replace(record, curves=short, norms=(*record.norms[:-1], replace(norms, norm_max=lost)))

    results = with_record(measured_study(seeds=(1, 2)), "per_loop-rmsnorm", audit.TOPIC, broken)
    canvas = DRAW["angular-step"](results)
    assert len(lines(canvas)["per_loop-rmsnorm"].get_ydata()) == 5
    write_figure(canvas, tmp_path / "a")
    spread = DRAW["norm-spread"](results)
    assert "per_loop-rmsnorm" not in [label.get_text() for label in spread.axes[0].get_yticklabels()]
    write_figure(spread, tmp_path / "b")


def test_figures_of_measurements_that_a_study_lacks_are_left_out(study):
    assert {name for name, draw in DRAW.items() if draw(study())} == {"norm-by-depth", "perplexity-by-depth"}


@pytest.mark.parametrize("record", [None, Failed("no state is finite.")])
def test_one_seed_without_a_measurement_leaves_its_condition_out(measured_study, record):
    def lose(run):
        return replace(run, measured=dict.fromkeys(run.measured, record)) if run.seed == 1 else run

    results = with_runs(measured_study(seeds=(1, 2)), "per_loop-raw", lose)
    for name in ("norm-spread", "angular-step", "frontier"):
        assert DRAW[name](results)
    assert "per_loop-raw" not in {point.model for point in frontier_points(results)}


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "[/]", "a\nb", "\x1b[31m", "模型"])
def test_a_condition_of_any_name_is_drawn(measured_study, tmp_path, name):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"))
    old = results.conditions
    results = replace(results, conditions={name: old["per_loop-rmsnorm"], "per_loop-raw": old["per_loop-raw"]})
    for figure, draw in DRAW.items():
        write_figure(draw(results), tmp_path / figure)
