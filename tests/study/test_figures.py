import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from loopscale.study.curves_by_depth import by_depth
from loopscale.study.drawing import control, to_svg, write
from loopscale.study.figures import FIGURES
from loopscale.study.frontier_figures import points

DRAW = {figure.name: figure.draw for figure in FIGURES}


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
    assert {control(c) for c in study().conditions.values()} == {
        "rmsnorm",
        "raw",
        "final_rmsnorm",
        "penalty",
        "inter-loop norm",
    }


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
        write(DRAW[name](results), tmp_path / name)
    named = lines(DRAW["perplexity-by-depth"](results))
    assert {line.get_label().split("\n")[1] for line in named.values()} == {"(off the scale at 12 of 12 loops)"}


def test_curves_of_different_length_and_a_single_loop_are_drawn(study, tmp_path):
    shorter = with_runs(study(seeds=(1, 2)), "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,) * run.seed))
    write(norm_figure(shorter), tmp_path / "short")
    results = replace(study(conditions=("per_loop-raw",)), num_loops=1)
    single = with_runs(results, "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,)))
    write(norm_figure(single), tmp_path / "single")


def test_without_curves_there_is_no_figure(study):
    assert norm_figure(study(conditions=())) is None
    assert norm_figure(study(seeds=())) is None
    assert by_depth(study(), lambda run: (), "nothing", 1.0) is None


def test_files_are_whole_and_equal_from_equal_data(study, tmp_path):
    for name in ("one", "two"):
        write(norm_figure(study()), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert ET.fromstring(to_svg(norm_figure(study()))).tag.endswith("svg")


def test_a_first_exit_beyond_the_scale_leaves_the_others_drawn(study, tmp_path):
    def huge(run):
        return replace(run, perplexity_by_depth=(1e300, 4.0, 3.0, math.inf if run.seed == 2 else 2.0))

    results = with_runs(study(seeds=(1, 2)), "terminal-raw", huge)
    canvas = DRAW["perplexity-by-depth"](
        with_runs(results, "per_loop-raw", lambda run: replace(run, perplexity_by_depth=()))
    )
    assert "per_loop-raw" not in lines(canvas)
    curve = lines(canvas)["terminal-raw"]
    assert [math.isfinite(value) for value in curve.get_ydata()] == [False, True, True, False]
    (crosses,) = [line for line in canvas.axes[0].get_lines() if line.get_marker() == "x"]
    assert list(crosses.get_xdata()) == [2, 3]
    write(canvas, tmp_path / "huge")


@pytest.mark.parametrize("curve", [(math.nan,), (math.nan, 2.0), (2.0, math.nan)])
def test_the_shortest_broken_curves_are_drawn(study, tmp_path, curve):
    results = with_runs(
        study(conditions=("per_loop-raw",)), "per_loop-raw", lambda run: replace(run, norm_by_depth=curve)
    )
    canvas = norm_figure(results)
    crosses = [x for line in canvas.axes[0].get_lines() if line.get_marker() == "x" for x in line.get_xdata()]
    assert crosses == [loop for loop, value in enumerate(curve, 1) if value == 2.0]
    write(canvas, tmp_path / "short")


def test_the_frontier_marks_dominated_exits_and_leaves_unusable_ones_out(measured_study, tmp_path):
    results = measured_study()
    left, right = DRAW["frontier"](results).axes
    curves = {line.get_label(): line for line in left.get_lines() if not line.get_label().startswith("_")}
    best = min(point.perplexity for point in points(results))
    drawn = [y for line in left.get_lines() for y in line.get_ydata()]
    assert max(drawn) <= 1.5 * best < max(point.perplexity for point in points(results))
    assert list(curves["terminal-rmsnorm"].get_xdata()) == [4e6]  # its last exit alone is usable
    hollow = [x for line in left.get_lines() if line.get_markerfacecolor() == "none" for x in line.get_xdata()]
    filled = [x for line in curves.values() for x in line.get_xdata()[line.get_markevery()]]
    assert hollow and sorted(hollow + filled) == sorted(x for line in curves.values() for x in line.get_xdata())
    assert right.xaxis_inverted()
    write(DRAW["frontier"](results), tmp_path / "frontier")


def test_the_angular_step_has_a_guide_of_slope_minus_one(measured_study):
    axes = DRAW["angular-step"](measured_study(seeds=(1, 2))).axes[0]
    (guide,) = (line for line in axes.get_lines() if line.get_label() == "1 / scale")
    (x, far), (y, low) = guide.get_xdata(), guide.get_ydata()
    assert far / x == pytest.approx(y / low) and (x, far) == (10.0, 290.0)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert next(iter(lines(DRAW["angular-step"](measured_study()))["per_loop-raw"].get_ydata())) == pytest.approx(0.5)


def test_norms_spread_from_median_to_largest(measured_study):
    axes = DRAW["norm-spread"](measured_study(conditions=("per_loop-raw",))).axes[0]
    assert [float(x) for x in axes.get_lines()[0].get_xdata()] == pytest.approx([0.9 * 9.5, 3 * 9.5])


def test_figures_of_measurements_that_a_study_lacks_are_left_out(study):
    assert [name for name, draw in DRAW.items() if draw(study())] == ["norm-by-depth", "perplexity-by-depth"]


def test_one_seed_without_a_measurement_leaves_its_condition_out(measured_study):
    results = with_runs(
        measured_study(seeds=(1, 2)), "per_loop-raw", lambda r: replace(r, extra={}) if r.seed == 1 else r
    )
    for name in ("norm-spread", "angular-step", "frontier"):
        assert DRAW[name](results)
    assert "per_loop-raw" not in {point.model for point in points(results)}
