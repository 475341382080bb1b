import math
from dataclasses import replace

import pytest

from loopscale.display import remarks, write_chart
from loopscale.study import TOPICS
from loopscale.study.drawing import by_depth
from loopscale.study.grid import condition_styles
from loopscale.study.results import Failed
from loopscale.study.topics import audit
from loopscale.study.topics.looping import useful_band
from loopscale.study.topics.worth import frontier_points

DRAW = {drawing.name: drawing.draw for topic in TOPICS for drawing in topic.figures}


def lines(chart):
    """Return the first series of every name on the first panel."""
    return {series.name: series for series in reversed(chart.panels[0].series)}


def states(chart, name):
    """Return what can be drawn of the points of a line."""
    panel = chart.panels[0]
    return [state for _, _, state in panel.points(lines(chart)[name])]


def norm_figure(results):
    return DRAW["norm-by-depth"](results)


def with_runs(results, condition, change):
    old = results.conditions[condition]
    runs = tuple(map(change, old.runs))
    return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})


def test_a_curve_is_the_mean_over_seeds(study):
    chart = norm_figure(study(seeds=(1, 2, 3)))
    curve = lines(chart)["per_loop-rmsnorm"]
    assert curve.x == tuple(range(1, 13))
    assert curve.y[3] == pytest.approx(880.0)
    assert all(series.reach_y for series in chart.series) and curve.reach_y[3] == pytest.approx((800.0, 960.0))


def test_one_seed_has_no_band(study):
    assert not any(series.reach_y for series in norm_figure(study()).series)


def test_the_trained_depth_is_marked_and_norms_are_logarithmic(study):
    (panel,) = norm_figure(study()).panels
    assert panel.y.log and panel.across
    assert [(rule.axis, rule.value, rule.words) for rule in panel.rules] == [("x", 4, "trained depth 4")]
    assert panel.zones[0].x == (4, math.inf)


def test_the_perplexity_axis_follows_its_range(study):
    draw = DRAW["perplexity-by-depth"]
    assert draw(study()).panels[0].y.log

    def narrow(run):
        return replace(run, perplexity_by_depth=(4.0, 4.1, 4.2, 4.3))

    assert not draw(with_runs(study(conditions=("per_loop-raw",)), "per_loop-raw", narrow)).panels[0].y.log


def test_conditions_are_told_apart(study):
    assert len({(s.style.colour, str(s.style.dashes)) for s in norm_figure(study()).series}) == 8


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

    chart = norm_figure(with_runs(study(), "per_loop-rmsnorm", blow_up))
    assert states(chart, "per_loop-rmsnorm") == ["drawn"] * 6 + ["lost"] * 6
    ends = list(chart.panels[0].ends(lines(chart)["per_loop-rmsnorm"]))
    assert [(point[0], kind) for point, kind in ends] == [(6, "lost")]
    assert remarks(chart) == "Crosses: not finite beside them, per_loop-rmsnorm at 6 points."


def test_runs_that_never_were_finite_are_named_and_drawn_without_a_crash(study, diverge, tmp_path):
    results = study(conditions=("per_loop-raw", "per_loop-rmsnorm"), seeds=(1, 2))
    results = diverge(diverge(results, "per_loop-raw"), "per_loop-rmsnorm", seed=2)
    for name in ("norm-by-depth", "perplexity-by-depth"):
        write_chart(DRAW[name](results), tmp_path / name)
    said = remarks(DRAW["perplexity-by-depth"](results))
    assert "per_loop-raw at 12 points" in said and "per_loop-rmsnorm at 12 points" in said


def test_curves_of_different_length_and_a_single_loop_are_drawn(study, tmp_path):
    shorter = with_runs(study(seeds=(1, 2)), "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,) * run.seed))
    assert states(norm_figure(shorter), "per_loop-raw") == ["drawn", "lost"]
    write_chart(norm_figure(shorter), tmp_path / "short")
    results = replace(study(conditions=("per_loop-raw",)), num_loops=1)
    single = with_runs(results, "per_loop-raw", lambda run: replace(run, norm_by_depth=(5.0,)))
    write_chart(norm_figure(single), tmp_path / "single")


def test_without_curves_there_is_no_figure(study):
    assert norm_figure(study(conditions=())) is None
    assert norm_figure(study(seeds=())) is None
    assert by_depth(study(), lambda run: (), "nothing", 1.0, 100.0) is None


@pytest.mark.parametrize("curve", [(math.nan,), (math.nan, 2.0), (2.0, math.nan)])
def test_the_shortest_broken_curves_are_drawn(study, tmp_path, curve):
    results = with_runs(
        study(conditions=("per_loop-raw",)), "per_loop-raw", lambda run: replace(run, norm_by_depth=curve)
    )
    chart = norm_figure(results)
    crosses = [point[0] for s in chart.series for point, kind in chart.panels[0].ends(s) if kind == "lost"]
    assert crosses == [loop for loop, value in enumerate(curve, 1) if value == 2.0]
    write_chart(chart, tmp_path / "short")


def test_an_exit_that_explodes_leaves_the_picture_by_an_arrow_and_is_told(study, tmp_path):
    def explode(run):
        return replace(run, perplexity_by_depth=(*run.perplexity_by_depth[:-1], 2e26))

    chart = DRAW["perplexity-by-depth"](with_runs(study(), "per_loop-raw", explode))
    assert states(chart, "per_loop-raw")[-1] == "beyond" and chart.panels[0].y.end < 1e4
    ends = list(chart.panels[0].ends(lines(chart)["per_loop-raw"]))
    assert [(point[0], kind) for point, kind in ends] == [(12, "beyond")]
    assert "per_loop-raw at 1 point" in remarks(chart) and "up to 2.00e26" in remarks(chart)
    write_chart(chart, tmp_path / "a")


def test_the_loss_of_training_is_drawn_without_its_first_steps(measured_study):
    chart = DRAW["loss-over-training"](measured_study(seeds=(1, 2)))
    assert states(chart, "per_loop-raw") == ["beyond", "drawn", "drawn"]
    assert lines(chart)["per_loop-raw"].x == (1, 2, 3) and chart.panels[0].across


def test_every_run_has_its_band_and_its_gain(study):
    results = study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1, 2))
    band, gain = DRAW["useful-band"](results).panels
    assert band.y.names == gain.y.names == ("per_loop-rmsnorm", "per_loop-raw")
    assert [s.x for s in band.series] == [useful_band(run.perplexity_by_depth) for run in results.all_runs]
    assert len({s.y for s in gain.series}) == 4 and gain.series[0].x[0] == pytest.approx(math.exp(0.1))


def test_every_run_is_a_point_of_the_plane(measured_study, records):
    (panel,) = DRAW["visibility-retention"](measured_study(seeds=(1, 2))).panels
    points = {s.name: (s.x[0], s.y[0]) for s in panel.series}
    (blind,) = panel.zones
    inside = {n for n, (x, y) in points.items() if x < blind.x[1] and y > blind.y[0]}
    found = {name for name, record in records.items() if record["audit"].verdicts["scale"] == "blind_spot"}
    assert inside == found and len(panel.series) == 16


def test_the_frontier_marks_dominated_exits_and_leaves_unusable_ones_out(measured_study, tmp_path):
    results = measured_study()
    chart = DRAW["frontier"](results)
    left, right = chart.panels
    points = frontier_points(results)
    best = min(point.perplexity for point in points)
    drawn = [y for series in left.series for y in series.y]
    assert max(drawn) <= 1.5 * best < max(point.perplexity for point in points)
    hollow = sum(len(series.hollow) for series in left.series)
    assert 0 < hollow < len(drawn) and right.x.falling and not left.x.falling
    for series in left.series:
        assert [("dominated" in note) for note in series.notes] == [i in series.hollow for i in range(len(series.x))]
    write_chart(chart, tmp_path / "frontier")


def test_the_angular_step_has_a_guide_of_slope_minus_one(measured_study, records):
    (panel,) = DRAW["angular-step"](measured_study(seeds=(1, 2))).panels
    (guide,) = (series for series in panel.series if series.name == "1 / scale")
    (x, far), (y, low) = guide.x, guide.y
    measured = records["per_loop-rmsnorm"]["audit"].curves
    assert far / x == pytest.approx(y / low) and x * y == pytest.approx(measured.scale[0] * measured.angular_step[0])
    assert panel.x.log and panel.y.log
    drawn = lines(DRAW["angular-step"](measured_study()))["per_loop-raw"]
    assert drawn.y[0] == pytest.approx(records["per_loop-raw"]["audit"].curves.angular_step[0])


def test_norms_spread_from_median_to_largest(measured_study, records):
    (panel,) = DRAW["norm-spread"](measured_study(conditions=("per_loop-raw",))).panels
    norms = records["per_loop-raw"]["audit"].norms[-1]
    assert panel.series[0].x == pytest.approx((norms.norm_median, norms.norm_p99, norms.norm_max))


def test_norms_that_explode_end_at_the_edge(measured_study, with_record, tmp_path):
    def explode(record):
        return replace(record, norms=(*record.norms[:-1], replace(record.norms[-1], norm_max=1e30)))

    chart = DRAW["norm-spread"](with_record(measured_study(), "per_loop-rmsnorm", audit.TOPIC, explode))
    assert chart.panels[0].x.end < 1e10 and "per_loop-rmsnorm at" in remarks(chart)
    write_chart(chart, tmp_path / "a")


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_curves_end_where_they_are_not_finite(measured_study, with_record, tmp_path, lost):
    def broken(record):
        curves, norms = record.curves, record.norms[-1]
        short = replace(curves, scale=(*curves.scale[:5], *[lost] * 25))
        return replace(record, curves=short, norms=(*record.norms[:-1], replace(norms, norm_max=lost)))

    results = with_record(measured_study(seeds=(1, 2)), "per_loop-rmsnorm", audit.TOPIC, broken)
    chart = DRAW["angular-step"](results)
    assert len(lines(chart)["per_loop-rmsnorm"].y) == 5
    write_chart(chart, tmp_path / "a")
    assert "per_loop-rmsnorm" not in DRAW["norm-spread"](results).panels[0].y.names


def test_figures_of_measurements_that_a_study_lacks_are_left_out(study):
    found = {name for name, draw in DRAW.items() if draw(study())}
    assert found == {"norm-by-depth", "perplexity-by-depth", "useful-band"}


@pytest.mark.parametrize("record", [None, Failed("no state is finite.")])
def test_one_seed_without_a_measurement_leaves_its_condition_out(measured_study, record):
    def lose(run):
        return replace(run, measured=dict.fromkeys(run.measured, record)) if run.seed == 1 else run

    results = with_runs(measured_study(seeds=(1, 2)), "per_loop-raw", lose)
    for name in ("norm-spread", "angular-step", "frontier"):
        assert DRAW[name](results)
    assert "per_loop-raw" not in {point.model for point in frontier_points(results)}


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "a\nb", "\x1b[31m", "模型"])
def test_a_condition_of_any_name_is_drawn(measured_study, tmp_path, name):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"))
    old = results.conditions
    results = replace(results, conditions={name: old["per_loop-rmsnorm"], "per_loop-raw": old["per_loop-raw"]})
    for figure in ("norm-by-depth", "norm-spread"):
        write_chart(DRAW[figure](results), tmp_path / figure)
