"""Tables and figures of exits: the depth curve, the frontier, and equal-cost differences."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from loopscale.display import (
    Axis,
    Chart,
    Column,
    Panel,
    Rule,
    Series,
    Style,
    Table,
    fresh_styles,
    number,
    percent,
    readable_top,
    signed,
)
from loopscale.display.figure import MARKS
from loopscale.evaluate.cost import Speed
from loopscale.evaluate.curve import DepthCurve, SafeRange
from loopscale.evaluate.fewer_bits import PrecisionReport
from loopscale.evaluate.pareto import Cost, Difference, FrontierPoint, Measured, dominated

CUT = 10.0  # times the best perplexity; what lies beyond leaves the picture
FULL = 1 / 16  # of the room that numbers have: from there on their end is near
ALIKE = 1e-6  # of a cross-entropy: rounding, by which windows differ to which an exit gives the same


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


def precision_table(title: str, reports: Sequence[PrecisionReport]) -> Table:
    """Return what the exits lose in each precision, and how far the states go astray."""
    exits = range(1, len(reports[0].perplexity) + 1)
    rows = (
        (
            r.precision,
            *map(number, r.perplexity),
            number(r.relative_perplexity[-1]),
            *(number(error, 2) for error in r.state_error),
            str(max(r.not_finite)),
        )
        for r in reports
    )
    return Table(
        name="precision",
        title=title,
        caption="perplexity of each exit (ppl), that of the last over float32's (ratio), mean relative error of each "
        "loop's state (err), and tokens whose state overflows, at most, in a loop.",
        columns=(
            Column("precision"),
            *_numeric(*(f"ppl {k}" for k in exits), "ratio", *(f"err {k}" for k in exits), "overflow"),
        ),
        rows=tuple(rows),
    )


def safe_sentence(curve: DepthCurve) -> str:
    """Say in words which depths are safe, where the norm goes, and where figures say nothing any more."""
    lost, at = list(_lost_meaning(curve)), min(curve.trained_loops, len(curve))
    if not math.isfinite(curve[at - 1].cross_entropy):
        return " ".join([f"The loss of exit {at} is not finite: nothing can be compared with it.", *lost])
    return " ".join([*([] if at in _alike(curve) else [_safe_sentence(curve)]), *lost])


def _alike(curve: DepthCurve) -> list[int]:
    """Return the exits at which every window costs the same, but for rounding."""
    several = curve.tokens.numel() > 1
    return [p.exit for p in curve if several and p.cross_entropy_se <= ALIKE * p.cross_entropy]


def _lost_meaning(curve: DepthCurve) -> Iterator[str]:
    """Yield what is to be said of numbers that are not finite, tell tokens no longer apart, or near their end."""
    broken = next((p.exit for p in curve if not math.isfinite(p.norm)), None)
    if broken is not None:
        yield (
            f"From exit {broken} on the norm of the state is not finite: its numbers are not, or are so large that "
            "their squares are not, and a norm returns zeros then."
        )
    elif lost := next((p.exit for p in curve if not math.isfinite(p.cross_entropy)), None):
        yield f"From exit {lost} on the loss is not finite."
    if alike := _alike(curve):
        yield (
            f"At exit{'s' if alike[1:] else ''} {', '.join(map(str, alike))} every window costs the same: either all "
            "windows hold the same text, or what is read there does not depend on it."
        )
    fill = [] if curve.fill is None else curve.fill.tolist()
    if near := [k for k, share in enumerate(fill, 1) if FULL <= share <= 1]:
        yield (
            f"From exit {near[0]} on the largest number of the state takes {percent(fill[near[0] - 1])} of the room "
            "that its numbers and the squares in a norm have: a little more, and figures are lost."
        )


def _safe_sentence(curve: DepthCurve) -> str:
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
    growth = (
        f", {signed(safe.norm_growth, 3)} e-folds per loop past training" if math.isfinite(safe.norm_growth) else ""
    )
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


def depth_chart(curves: Mapping[str, DepthCurve]) -> Chart:
    """Draw perplexity (with two standard errors of its logarithm) and norm over exits; dotted: trained depths.

    What explodes leaves the picture, so that the other curves can be told apart.
    """
    styles = fresh_styles({name: (name, "") for name in curves})
    quality, norms = [], []
    for name, curve in curves.items():
        exits, perplexity = tuple(float(p.exit) for p in curve), tuple(p.perplexity for p in curve)
        reach = tuple(_two_errors(p.perplexity, p.cross_entropy_se) for p in curve)
        quality.append(Series(name, exits, perplexity, styles[name], ".", reach_y=reach))
        norms.append(Series(name, exits, tuple(p.norm for p in curve), styles[name], "."))
    rules = tuple(
        Rule("x", depth, f"trained depth {depth}") for depth in sorted({c.trained_loops for c in curves.values()})
    )
    panels = []
    for label, series, factor in (("perplexity", quality, CUT), ("mean ‖zₖ‖", norms, CUT**4)):
        y = Axis(label, log=True, end=readable_top([s.y for s in series], factor))
        panels.append(Panel(Axis("exit", whole=True), y, tuple(series), rules, across=True))
    return Chart(tuple(panels))


def frontier_chart(points: Sequence[FrontierPoint], styles: Mapping[str, Style] | None = None) -> Chart:
    """Draw perplexity against operations per token and against throughput, one line per model; exits are numbered.

    Exits that another one dominates are hollow; perplexities far above every model's best leave the picture.
    """
    models = list(dict.fromkeys(point.model for point in points))
    known = {**fresh_styles({name: (name, "") for name in models}), **(styles or {})}
    end = readable_top([[p.perplexity for p in points if p.model == name] for name in models], CUT)
    costs: tuple[tuple[Axis, Cost, Callable[[FrontierPoint], float | None]], ...] = (
        (Axis("FLOPs per token", log=True), "flops", lambda point: point.flops),
        (Axis("tokens per second", log=True, falling=True), "seconds", lambda point: point.tokens_per_second),
    )  # cost grows to the right on both sides
    return Chart(
        tuple(
            Panel(axis, Axis("perplexity", end=end), tuple(_series(points, kind, place, known)))
            for axis, kind, place in costs
        )
    )


def _two_errors(perplexity: float, nats: float) -> tuple[float, float]:
    """Return two standard errors of the logarithm around a perplexity."""
    factor = math.exp(min(2 * nats, 700.0)) if math.isfinite(nats) else 1.0
    return perplexity / factor, perplexity * factor


def _series(
    points: Sequence[FrontierPoint],
    kind: Cost,
    place: Callable[[FrontierPoint], float | None],
    styles: Mapping[str, Style],
) -> Iterator[Series]:
    by_model: dict[str, list[tuple[float, FrontierPoint, bool]]] = {}
    for point, hit in zip(points, dominated(points, kind), strict=True):
        if (x := place(point)) is not None and math.isfinite(point.perplexity):
            by_model.setdefault(point.model, []).append((x, point, hit))
    for i, (name, own) in enumerate(by_model.items()):
        yield Series(
            name,
            tuple(x for x, _, _ in own),
            tuple(point.perplexity for _, point, _ in own),
            styles[name],
            marker=MARKS[i % len(MARKS)],
            hollow=frozenset(j for j, (_, _, hit) in enumerate(own) if hit),
            words=tuple(str(point.exit) for _, point, _ in own),
            notes=tuple(f"exit {point.exit}{', dominated' if hit else ''}" for _, point, hit in own),
        )


def _known(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else number(value * unit)


def _numeric(*headings: str) -> tuple[Column, ...]:
    return tuple(Column(heading, numeric=True) for heading in headings)
