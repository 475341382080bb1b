"""What an audit found, as tables for a terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from loopscale.audit.curves import LoopCurves
from loopscale.audit.interventions import Interventions
from loopscale.audit.report import AuditReport
from loopscale.audit.search import SearchReport
from loopscale.audit.verdict import Kind, Verdict

STYLES: Mapping[Kind, str] = {"visible": "green", "removed": "cyan", "blind_spot": "bold red"}


def verdict_table(report: AuditReport) -> Table:
    """Return one row per coordinate with its figures, verdict and remedy."""
    table = _table("coordinate", "visible at loops", "retained", "drift per loop", "verdict", "remedy")
    for name, c in report.coordinates.items():
        table.add_row(
            name,
            _seen(c.seen_by) or f"none (at most {max(c.visibility):.1e})",
            f"{c.retained:.3g}",
            _numbers(c.drift),
            _verdict(c.verdict, c.removed_by),
            c.remedy or "",
        )
    return table


def static_table(verdicts: Mapping[str, Verdict]) -> Table:
    """Return one row per coordinate that a configuration decides."""
    table = _table("coordinate", "visible at loops", "verdict", "remedy")
    for name, v in verdicts.items():
        table.add_row(name, _seen(v.seen_by) or "none", _verdict(v.verdict, v.removed_by), v.remedy or "")
    return table


def loop_table(report: AuditReport) -> Table:
    """Return one row per loop: cross-entropy, scale over tokens, and what the loss feels of scale."""
    table = _table("loop", "cross-entropy", "mean norm", "median", "p99", "max", "RMS scale")
    for k, stats in enumerate(report.scale):
        figures = stats.norm, stats.norm_median, stats.norm_p99, stats.norm_max, stats.scale
        table.add_row(str(k + 1), f"{report.cross_entropy[k]:.4f}", *(f"{x:.4g}" for x in figures))
    return table


def curves_line(curves: LoopCurves) -> str:
    """Return lemma 2's reading in one line."""
    if curves.fit is None:
        return "lemma 2: the scale does not vary enough over loops for a fit."
    return (
        f"lemma 2 over {len(curves.scale)} loops: angular step ~ scale^{curves.fit.slope:.2f} "
        f"(R^2 {curves.fit.r_squared:.3f}; predicted -1); norm {curves.norm[0]:.4g} after loop 1, "
        f"{curves.norm[-1]:.4g} after the last."
    )


def intervention_table(changed: Interventions) -> Table:
    """Return the cross-entropy of every exit under every intervention."""
    table = _table("intervention", *(f"exit {k + 1}" for k in range(len(changed.cross_entropy["none"]))))
    for name, values in changed.cross_entropy.items():
        table.add_row(name, *(f"{x:.4f}" for x in values))
    for factor, values in changed.readout_scaling.items():
        table.add_row(f"readout of {factor:g} z", *(f"{x:.4f}" for x in values))
    return table


def search_table(report: SearchReport) -> Table:
    """Return the least visible, most retained directions; figures of held-out batches."""
    table = _table("direction", "visibility", "null", "retention", "verdict")
    for i, d in enumerate(report.directions):
        verdict = _verdict("blind_spot", None) if d.blind else "no finding"
        table.add_row(str(i + 1), f"{d.visibility:.2e}", f"{report.null_visibility:.2e}", f"{d.retention:.3g}", verdict)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _verdict(kind: Kind, removed_by: str | None) -> str:
    by = f" by {removed_by}" if kind == "removed" else ""
    return f"[{STYLES[kind]}]{kind}{by}[/]"


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


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{x:+.2g}" for x in values)
