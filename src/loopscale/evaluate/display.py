"""Tables and figures of exits: the depth curve, the frontier, and equal-cost differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopscale.display import Column, Table, draw_label, number, percent, readable_top, signed, styled
from loopscale.display.figure import MARKS
from loopscale.evaluate.cost import Speed
from loopscale.evaluate.curve import DepthCurve, SafeRange
from loopscale.evaluate.pareto import Cost, Difference, FrontierPoint, Measured, dominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT = 10.0  # times the best perplexity; what lies beyond leaves the picture


def depth_table(title: str, measured: Measured, speeds: Mapping[int, Sequence[Speed]]) -> Table:
    """Return the depth curve: quality, norm, operations, and tokens per second at each batch size."""
    curve = measured.curve
    fast = {(size, s.exit): s.tokens_per_second for size, found in speeds.items() for s in found}
    rows = (
        (
            f"{p.exit}{'*' if p.exit == curve.trained_loops else ''}",
            number(p.perplexity),
            number(p.perplexity_se),
            _known(p.bits_per_byte),
            number(p.norm),
            number(measured.flops.at_exit(p.exit) / 1e6),
            *(_known(fast.get((size, p.exit))) for size in speeds),
        )
        for p in curve
    )
    return Table(
        name="depth",
        title=title,
        caption=f"{safe_sentence(curve)}{' tok/s @B: at batch B.' if speeds else ''}",
        columns=_numeric(
            "exit", "perplexity", "± se", "bits/byte", "norm", "MFLOP/tok", *(f"tok/s @{size}" for size in speeds)
        ),
        rows=tuple(rows),
    )


def safe_sentence(curve: DepthCurve) -> str:
    """Say in words which depths are safe, and where the norm goes."""
    safe: SafeRange = curve.safe_range()
    if len(curve) < curve.trained_loops:
        return (
            f"The curve ends at exit {len(curve)}, before the trained depth of {curve.trained_loops}: which exits are "
            f"about as good cannot be said. Best exit so far {safe.best}."
        )
    ends = (
        f"perplexity turns up at exit {safe.turns_up_at}"
        if safe.turns_up_at
        else f"perplexity does not turn up to exit {len(curve)}"
    )
    at = curve.trained_loops
    growth = f", {signed(safe.norm_growth, 3)} e-folds per loop past training" if len(curve) > at else ""
    within = percent(safe.relative_perplexity - 1)
    return (
        f"* trained depth. Exits {safe.first} to {safe.last} stay within {within} of it; {ends}; "
        f"best exit {safe.best}. "
        f"Norm {number(safe.norm_trained)} at exit {at}, {number(safe.norm_deepest)} at exit {len(curve)}{growth}."
    )


def frontier_table(title: str, points: Sequence[FrontierPoint]) -> Table:
    """Return all exits of all models, the cheapest first, and by which cost another exit dominates them."""
    by_flops, by_seconds = dominated(points, "flops"), dominated(points, "seconds")
    judged = zip(points, by_flops, by_seconds, strict=True)
    rows = (
        (
            p.model,
            str(p.exit),
            number(p.perplexity),
            _known(p.flops, 1e-6),
            _known(p.tokens_per_second),
            _known(p.latency, 1e3),
            ", ".join(word for word, hit in (("compute", flops), ("speed", seconds)) if hit),
        )
        for p, flops, seconds in sorted(judged, key=lambda row: (row[0].flops or 0, row[0].perplexity))
    )
    columns = _numeric("exit", "ppl", "MFLOP/tok", "tokens/s", "ms")
    return Table("frontier", title, "", (Column("model"), *columns, Column("dominated")), tuple(rows))


def difference_table(title: str, found: Sequence[Difference]) -> Table:
    """Return who is better at equal cost; negative nats are better than the reference."""
    rows = (
        (
            d.model,
            d.reference,
            "compute" if d.at_equal == "flops" else "throughput",
            str(d.exit),
            signed(d.nats.value),
            f"{signed(d.nats.low)} to {signed(d.nats.high)}",
            d.per,
        )
        for d in found
    )
    words, aside = ("model", "reference", "at equal"), ("95% interval", "per")
    columns = (*map(Column, words), *_numeric("exit", "nats"), *map(Column, aside))
    return Table("differences", title, "", columns, tuple(rows))


@styled
def depth_figure(curves: Mapping[str, DepthCurve]) -> "Figure":
    """Draw perplexity (with two standard errors of its logarithm) and norm over exits; dotted: trained depths.

    What explodes leaves the picture, so that the other curves can be told apart.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        exits = [p.exit for p in curve]
        perplexity = [p.perplexity for p in curve]
        (line,) = left.plot(exits, perplexity, marker=".", label=draw_label(name))
        with np.errstate(all="ignore"):
            bands = [np.multiply(perplexity, np.exp([sign * p.cross_entropy_se for p in curve])) for sign in (-2, 2)]
        left.fill_between(exits, *bands, color=line.get_color(), alpha=0.15, linewidth=0)
        right.plot(exits, [p.norm for p in curve], marker=".", color=line.get_color())
        for axes in (left, right):
            axes.axvline(curve.trained_loops, color=line.get_color(), linestyle=":", linewidth=1)
    for axes, label in ((left, "perplexity"), (right, r"mean $\|z_k\|_2$")):
        axes.set(xlabel="exit", ylabel=label, yscale="log")
        axes.grid()
    _cut(left, [[p.perplexity for p in curve] for curve in curves.values()], CUT)
    _cut(right, [[p.norm for p in curve] for curve in curves.values()], CUT**4)
    left.legend(frameon=False)
    return figure


@styled
def frontier_figure(points: Sequence[FrontierPoint], styles: Mapping[str, Mapping[str, Any]] | None = None) -> "Figure":
    """Draw perplexity against operations per token and against throughput, one line per model; exits are numbered.

    Exits that another one dominates are hollow; perplexities far above every model's best leave the picture. `styles`
    are matplotlib's line properties by model.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _points(left, points, "flops", lambda point: point.flops, styles or {})
    _points(right, points, "seconds", lambda point: point.tokens_per_second, styles or {})
    left.set(xlabel="FLOPs per token", ylabel="perplexity", xscale="log")
    right.set(xlabel="tokens per second", ylabel="perplexity", xscale="log")
    right.invert_xaxis()  # cost grows to the right on both sides
    by_model: dict[str, list[float]] = {}
    for point in points:
        by_model.setdefault(point.model, []).append(point.perplexity)
    for axes in (left, right):
        axes.grid(alpha=0.2)
        _cut(axes, list(by_model.values()), CUT)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _cut(axes: "Axes", curves: Sequence[Sequence[float]], factor: float) -> None:
    """End an axis where an exploding curve would flatten the others, and say so."""
    top = readable_top(curves, factor)
    values = [y for curve in curves for y in curve]
    if any(y > top for y in values):
        low = min(y for y in values if math.isfinite(y) and y > 0)
        axes.set(ylim=(low / 2, top), ylabel=f"{axes.get_ylabel()} (beyond: cut off)")


def _points(
    axes: "Axes",
    points: Sequence[FrontierPoint],
    kind: Cost,
    place: Callable[[FrontierPoint], float | None],
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    by_model: dict[str, list[tuple[float, FrontierPoint, bool]]] = {}
    for point, hit in zip(points, dominated(points, kind), strict=True):
        own = by_model.setdefault(point.model, [])
        if (x := place(point)) is not None and math.isfinite(point.perplexity):
            own.append((x, point, hit))
    for i, (name, own) in enumerate(by_model.items()):
        style = {"marker": MARKS[i % len(MARKS)], **styles.get(name, {})}
        filled = [j for j, (_, _, hit) in enumerate(own) if not hit]
        places, heights = [x for x, _, _ in own], [p.perplexity for _, p, _ in own]
        (line,) = axes.plot(places, heights, label=draw_label(name), markevery=filled, **style)
        hollow = [(x, p.perplexity) for x, p, hit in own if hit]
        looks = {"marker": style["marker"], "color": line.get_color(), "linestyle": "", "markerfacecolor": "none"}
        axes.plot([x for x, _ in hollow], [y for _, y in hollow], **looks)
        for x, p, _ in own:
            at = (x, p.perplexity)
            axes.annotate(str(p.exit), at, textcoords="offset points", xytext=(4, 4), fontsize=7)


def _known(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else number(value * unit)


def _numeric(*headings: str) -> tuple[Column, ...]:
    return tuple(Column(heading, numeric=True) for heading in headings)
