"""Measurements as rich tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopscale.evaluate.cost import Speed
from loopscale.evaluate.curve import DepthCurve, SafeRange
from loopscale.evaluate.frontier import Difference, FrontierPoint, Measured, dominated


def depth_table(title: str, measured: Measured, speeds: Mapping[int, Sequence[Speed]]) -> Table:
    """Return the depth curve: quality, norm, operations, and tokens per second at each batch size."""
    curve = measured.curve
    table = Table(
        title=title,
        title_justify="left",
        caption=f"{safe_sentence(curve)} tok/s @B: at batch B." if speeds else safe_sentence(curve),
        caption_justify="left",
    )
    for heading in ("exit", "perplexity", "± se", "bits/byte", "norm", "MFLOP/tok"):
        table.add_column(heading, justify="right")
    for size in speeds:
        table.add_column(f"tok/s @{size}", justify="right")
    fast = {(size, s.exit): s.tokens_per_second for size, found in speeds.items() for s in found}
    for p in curve:
        table.add_row(
            f"{p.exit}{'*' if p.exit == curve.trained_loops else ''}",
            _short(p.perplexity),
            _short(p.perplexity_se),
            _short(p.bits_per_byte),
            f"{p.norm:,.1f}",
            f"{measured.flops.at_exit(p.exit) / 1e6:,.2f}",
            *(f"{fast[size, p.exit]:,.0f}" if (size, p.exit) in fast else "" for size in speeds),
        )
    return table


def safe_sentence(curve: DepthCurve) -> str:
    """Say in words which depths are safe, and where the norm goes."""
    safe: SafeRange = curve.safe_range()
    if len(curve) < curve.trained_loops:
        return (
            f"The curve ends at exit {len(curve)}, before the trained depth of {curve.trained_loops}: which exits are "
            f"about as good cannot be said. Best exit so far {safe.best}."
        )
    factor = f"{(safe.relative_perplexity - 1):.0%}"
    ends = (
        f"perplexity turns up at exit {safe.turns_up_at}"
        if safe.turns_up_at
        else f"perplexity does not turn up to exit {len(curve)}"
    )
    at = curve.trained_loops
    past = len(curve) - at
    growth = f", {safe.norm_growth:+.3f} e-folds per loop past training" if past > 0 else ""
    return (
        f"* trained depth. Exits {safe.first} to {safe.last} stay within {factor} of it; {ends}; "
        f"best exit {safe.best}. "
        f"Norm {safe.norm_trained:,.1f} at exit {at}, {safe.norm_deepest:,.1f} at exit {len(curve)}{growth}."
    )


def frontier_table(title: str, points: Sequence[FrontierPoint]) -> Table:
    """Return all exits of all models, the cheapest first, and by which cost another exit dominates them."""
    table = Table(title=title, title_justify="left")
    for heading in ("model", "exit", "ppl", "MFLOP/tok", "tokens/s", "ms", "dominated"):
        table.add_column(heading, justify="left" if heading in ("model", "dominated") else "right")
    by_flops, by_seconds = dominated(points, "flops"), dominated(points, "seconds")
    rows = list(zip(points, by_flops, by_seconds, strict=True))
    for p, flops, seconds in sorted(rows, key=lambda row: (row[0].flops or 0, row[0].perplexity)):
        words = [word for word, hit in (("compute", flops), ("speed", seconds)) if hit]
        table.add_row(
            p.model,
            str(p.exit),
            _short(p.perplexity),
            "" if p.flops is None else f"{p.flops / 1e6:,.2f}",
            "" if p.tokens_per_second is None else f"{p.tokens_per_second:,.0f}",
            "" if p.latency is None else f"{p.latency * 1e3:,.1f}",
            ", ".join(words),
        )
    return table


def difference_table(title: str, found: Sequence[Difference]) -> Table:
    """Return who is better at equal cost; negative nats are better than the reference."""
    table = Table(title=title, title_justify="left")
    for heading in ("model", "reference", "at equal", "exit", "nats", "95% interval", "per"):
        table.add_column(heading, justify="right" if heading in ("exit", "nats") else "left")
    for d in found:
        at_equal = "compute" if d.at_equal == "flops" else "throughput"
        interval = f"{d.nats.low:+.4f} to {d.nats.high:+.4f}"
        table.add_row(d.model, d.reference, at_equal, str(d.exit), f"{d.nats.value:+.4f}", interval, d.per)
    return table


def halting_table(title: str, report: Mapping[str, Any]) -> Table:
    """Return what `run_halting` found, the oracle's bound first."""
    caption = (
        f"calibrated on {report['calibration_windows']} windows, reported on {report['test_windows']} others; "
        f"loops of {report['num_loops']}; 95% interval; the oracle knows the labels"
    )
    table = Table(title=f"{title}: {report['target']}", title_justify="left", caption=caption, caption_justify="left")
    for heading in ("level", "rule", "relative ppl", "selected", "executed", "target"):
        table.add_column(heading, justify="right" if heading in ("selected", "executed") else "left")
    for level, bound in report["oracle"].items():
        table.add_row(level, "oracle", f"{bound['relative_perplexity']:.4f}", f"{bound['selected_loops']:.2f}", "", "")
    for row in report["results"]:
        quality = row["relative_perplexity"]
        table.add_row(
            row["rule"]["level"],
            row["rule"]["rule"],
            f"{quality['value']:.4f} [{quality['low']:.3f}, {quality['high']:.3f}]",
            f"{row['selected_loops']['value']:.2f}",
            f"{row['executed_loops']['value']:.2f}",
            ("kept" if row["kept"] else "missed") if row["possible"] else "cannot be met",
        )
    return table


def halting_time_table(title: str, report: Mapping[str, Any]) -> Table:
    """Return executed loops and wall time of the timed rules at each batch size."""
    caption = "milliseconds per window, with the rule and at full depth"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in ("level", "rule", "batch", "executed", "loops saved", "time saved", "ms", "full ms"):
        table.add_column(heading, justify="left" if heading in ("level", "rule") else "right")
    for row in report["times"]:
        table.add_row(
            row["rule"]["level"],
            row["rule"]["rule"],
            str(row["batch_size"]),
            f"{row['executed_loops']:.2f}",
            f"{row['loop_saving']:.1%}",
            f"{row['time_saving']:.1%}",
            f"{row['seconds'] * 1e3:.2f}",
            f"{row['full_seconds'] * 1e3:.2f}",
        )
    return table


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:.3g}"
