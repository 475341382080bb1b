"""Tables and figures of one audit.

Losses and coordinates are shown by the names that the report gives them; none is known here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopscale.audit.blind_directions import SearchReport
from loopscale.audit.findings import AuditReport, CoordinateReport
from loopscale.audit.interventions import Interventions
from loopscale.audit.loop_steps import LoopCurves
from loopscale.audit.verdict import Kind, Verdict
from loopscale.display import Column, Table, draw_label, number, readable_top, signed, styled, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERDICT = Column("verdict", colours={"visible": "green", "removed": "cyan", "blind_spot": "bold red"})
REMEDY = Column("remedy", sentences=True)
ANGULAR_AXES = ("scale of the state (RMS)", "angular step to the next loop")
FLOOR = 1e-10  # zeros on a logarithmic axis are drawn here
READABLE = 10.0  # times the worst model's best loss; beyond, a curve leaves the picture


def verdict_table(report: AuditReport) -> Table:
    """Return one row per coordinate with its figures, verdict and remedy."""
    rows = (
        (
            name,
            _seen(c.seen_by) or f"none (at most {number(max(c.visibility), 2)})",
            number(c.retained, 3),
            " ".join(signed(x, 2) for x in c.drift),
            _verdict(c.verdict, c.removed_by),
            c.remedy or "",
        )
        for name, c in report.coordinates.items()
    )
    return _table("coordinate", "visible at loops", "retained", "drift per loop", VERDICT, REMEDY, rows=rows)


def static_table(verdicts: Mapping[str, Verdict]) -> Table:
    """Return one row per coordinate that a configuration decides."""
    rows = (
        (name, _seen(v.seen_by) or "none", _verdict(v.verdict, v.removed_by), v.remedy or "")
        for name, v in verdicts.items()
    )
    return _table("coordinate", "visible at loops", VERDICT, REMEDY, rows=rows)


def loop_table(report: AuditReport) -> Table:
    """Return one row per loop: cross-entropy, and scale over tokens."""
    rows = (
        (str(k), *map(number, (loss, s.norm, s.norm_median, s.norm_p99, s.norm_max, s.scale)))
        for k, (loss, s) in enumerate(zip(report.cross_entropy, report.scale, strict=True), 1)
    )
    return _figures("loop", "cross-entropy", "mean norm", "median", "p99", "max", "RMS scale", rows=rows)


def curves_line(curves: LoopCurves) -> str:
    """Return lemma 2's reading in one line."""
    if curves.fit is None:
        return "lemma 2: the scale does not vary enough over loops for a fit."
    return (
        f"lemma 2 over {len(curves.scale)} loops: angular step ~ scale^{curves.fit.slope:.2f} "
        f"(R^2 {curves.fit.r_squared:.3f}; predicted -1); norm {number(curves.norm[0])} after loop 1, "
        f"{number(curves.norm[-1])} after the last."
    )


def intervention_table(changed: Interventions) -> Table:
    """Return the cross-entropy of every exit under every intervention."""
    readouts = {f"readout of {factor:g} z": values for factor, values in changed.readout_scaling.items()}
    rows = ((name, *map(number, values)) for name, values in {**changed.cross_entropy, **readouts}.items())
    exits = (f"exit {k + 1}" for k in range(len(changed.cross_entropy["none"])))
    return _figures("intervention", *exits, rows=rows)


def search_table(report: SearchReport) -> Table:
    """Return the least visible, most retained directions; figures of held-out batches."""
    rows = (
        (
            str(i),
            number(d.visibility, 3),
            number(report.null_visibility, 3),
            number(d.retention, 3),
            "blind_spot" if d.blind else "no finding",
        )
        for i, d in enumerate(report.directions, 1)
    )
    return _table("direction", "visibility", "null", "retention", VERDICT, rows=rows)


def write_figures(folder: Path, report: AuditReport, curves: LoopCurves, changed: Interventions) -> list[Path]:
    """Write every figure of an audit into `folder` as PNG and SVG, and return the paths."""
    drawings: Mapping[str, Callable[[Axes], None]] = {
        "scale": lambda axes: _draw_scale(axes, report),
        "visibility": lambda axes: _draw_visibility(axes, report),
        "retention": lambda axes: _draw_retention(axes, report),
        "lemma2": lambda axes: _draw_lemma2(axes, curves),
        "interventions": lambda axes: _draw_interventions(axes, changed),
        "readout_scaling": lambda axes: _draw_readout_scaling(axes, changed),
    }
    for name, draw in drawings.items():
        _write(folder / name, draw)
    return [folder / f"{name}.{kind}" for name in drawings for kind in ("png", "svg")]


def draw_angular_steps(
    axes: "Axes",
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Draw the angular step against the scale on logarithmic axes, with 1 / scale from the first curve's start.

    `curves` has scale and angular step per loop, by name (a last scale without a step is left out);
    `styles` are matplotlib's line properties by name.
    """
    for i, (name, (scale, step)) in enumerate(curves.items()):
        known = scale[: len(step)]
        axes.plot(known, step, **{"marker": "o", "label": draw_label(name), **(styles or {}).get(name, {})})
        if i == 0 and known:
            ends = (min(known), max(known))
            guide = [known[0] * step[0] / s for s in ends]
            axes.plot(ends, guide, "--", color="0.5", linewidth=1, label="1 / scale")
    axes.set_xscale("log")
    axes.set_yscale("log")


@styled
def _write(stem: Path, draw: "Callable[[Axes], None]") -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    draw(figure.subplots())
    write_figure(figure, stem)


def _draw_scale(axes: "Axes", report: AuditReport) -> None:
    for label, values in {
        "mean": [s.norm for s in report.scale],
        "median": [s.norm_median for s in report.scale],
        "p99": [s.norm_p99 for s in report.scale],
        "max": [s.norm_max for s in report.scale],
    }.items():
        _line(axes, label, values)
    axes.set_yscale("log")
    _finish(axes, "loop", "norm of the state, over tokens")


def _draw_visibility(axes: "Axes", report: AuditReport) -> None:
    for name, coordinate in report.coordinates.items():
        for label, values in _by_loss(name, coordinate).items():
            _line(axes, label, [max(v, FLOOR) for v in values])
    axes.axhline(report.thresholds.visible, color="0.4", linestyle="--", linewidth=1, label="threshold")
    axes.set_yscale("log")
    _finish(axes, "loop", "visibility (share of the gradient)")


def _by_loss(name: str, coordinate: CoordinateReport) -> dict[str, Sequence[float]]:
    others = {f"{name}, {loss}": values for loss, values in coordinate.seen.items()}
    return {name: coordinate.visibility, **others}


def _draw_retention(axes: "Axes", report: AuditReport) -> None:
    for name, c in report.coordinates.items():
        _line(axes, name, c.retention)
    axes.axhline(report.thresholds.retained, color="0.4", linestyle="--", linewidth=1, label="threshold")
    _finish(axes, "loop", "retention by the next loop")


def _draw_lemma2(axes: "Axes", curves: LoopCurves) -> None:
    draw_angular_steps(axes, {"measured": (curves.scale, curves.angular_step)})
    _finish(axes, *ANGULAR_AXES)


def _draw_interventions(axes: "Axes", changed: Interventions) -> None:
    for name, values in changed.cross_entropy.items():
        _line(axes, name, values)
    _finish_losses(axes, "exit", changed.cross_entropy.values())


def _draw_readout_scaling(axes: "Axes", changed: Interventions) -> None:
    factors = list(changed.readout_scaling)
    curves = [[changed.readout_scaling[f][k] for f in factors] for k in range(len(changed.cross_entropy["none"]))]
    for k, values in enumerate(curves, 1):
        axes.plot(factors, values, marker="o", label=f"exit {k}")
    axes.set_xscale("log")
    _finish_losses(axes, "state scaled by this before the readout", curves)


def _line(axes: "Axes", label: str, values: Sequence[float]) -> None:
    axes.plot(range(1, len(values) + 1), values, marker="o", label=draw_label(label))


def _finish_losses(axes: "Axes", x: str, curves: "Iterable[Sequence[float]]") -> None:
    values = list(curves)
    top = readable_top(values, READABLE)
    cut = any(loss > top for curve in values for loss in curve)
    if cut:
        axes.set_ylim(0, top)
    _finish(axes, x, f"cross-entropy (nats per token{'; beyond: cut off' if cut else ''})")


def _finish(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid()
    axes.legend(frameon=False, fontsize="small")


def _table(*columns: str | Column, rows: Iterable[tuple[str, ...]]) -> Table:
    return Table("", "", "", tuple(c if isinstance(c, Column) else Column(c) for c in columns), tuple(rows))


def _figures(first: str, *columns: str, rows: Iterable[tuple[str, ...]]) -> Table:
    return _table(first, *(Column(name, numeric=True) for name in columns), rows=rows)


def _verdict(kind: Kind, removed_by: str | None) -> str:
    return f"{kind} by {removed_by}" if kind == "removed" else kind


def _seen(seen_by: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"{_ranges(loops)} ({loss})" for loss, loops in seen_by.items())


def _ranges(loops: Sequence[int]) -> str:
    """Return 1-3, 5 for 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for k in loops:
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
