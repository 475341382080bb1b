"""Table of a scan: the perplexity of every core and number of loops, beside the original's."""

from collections.abc import Sequence

from loopscale.display import Column, Table, number
from loopscale.retrofit.core_scan import Scan, ScanPoint
from loopscale.system.precision import perplexity

BEST = "*"  # behind the lowest perplexity of all


def scan_table(scan: Scan) -> Table:
    """Return a row for every core, with the perplexity of its loops, plain and damped."""
    ways = sorted({(point.damped, point.loops) for point in scan.points})
    cores = sorted({(point.first, point.last) for point in scan.points}, key=lambda core: (core[1] - core[0], core))
    lowest = min((point.cross_entropy for point in scan.points), default=float("nan"))
    rows = [
        (f"{first}:{last}", str(last - first), *(_cell(scan.of_core((first, last)), way, lowest) for way in ways))
        for first, last in cores
    ]
    headings = [f"{loops} damped" if damped else f"{loops} loops" for damped, loops in ways]
    columns = (Column("core"), *(Column(heading, numeric=True) for heading in ("layers", *headings)))
    return Table("scan", "Looping without training", _caption(scan), columns, tuple(rows))


def _cell(points: Sequence[ScanPoint], way: tuple[bool, int], lowest: float) -> str:
    here = [point for point in points if (point.damped, point.loops) == way]
    if not here:
        return "-"
    return number(here[0].perplexity) + (BEST if here[0].cross_entropy == lowest else "")


def _caption(scan: Scan) -> str:
    best = min(scan.points, key=lambda point: point.cross_entropy, default=None)
    words = (
        f"Perplexity on {scan.tokens:,} tokens with a range of the {scan.layers} layers looped; the original's is "
        f"{number(perplexity(scan.original))}. Damped: every loop goes the 1/K part of its way (arXiv 2605.23872)."
    )
    if best is None:
        return words
    return (
        f"{words} Lowest ({BEST}): {best.above_original:+.4f} nats a token against the original, with a standard error "
        f"of {best.above_original_se:.4f}."
    )
