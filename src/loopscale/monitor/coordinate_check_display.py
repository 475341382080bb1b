"""Display of a loop check: one table, one figure, and the verdict in words."""

from typing import TYPE_CHECKING

from loopscale.display import Column, Table, number, signed, styled
from loopscale.display.figure import colour_of
from loopscale.monitor.coordinate_check import LoopCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def check_table(check: LoopCheck) -> Table:
    """Return what the state does at each learning rate, with its verdict."""
    headings = ("learning rate", "width slope", "loop K / loop 1", "after / before", "turn K / 2")
    columns = (*(Column(heading, numeric=True) for heading in headings), Column("verdict", sentences=True))
    rows = tuple(
        (
            f"{verdict.rate:g}",
            "–" if verdict.width_slope is None else signed(verdict.width_slope, 2),
            number(verdict.over_loops, 3),
            number(verdict.over_steps, 3),
            "–" if verdict.turn is None else number(verdict.turn, 2),
            "; ".join(verdict.complaints) or "steady",
        )
        for verdict in check.verdicts
    )
    return Table("loop-check", "Loop check", "", columns, rows)


@styled
def check_figure(check: LoopCheck) -> "Figure":
    """Return RMS and angular step against the loop, and against the width, after the last step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    widths, loops, rates = (sorted({getattr(p, name) for p in check.points}) for name in ("width", "loops", "rate"))
    for i, rate in enumerate(rates):
        for width in widths:
            look = {"color": colour_of(i), "alpha": 0.35 + 0.65 * (widths.index(width) + 1) / len(widths)}
            reading = check.last(width, loops[-1], rate)
            if reading is not None:
                label = f"rate {rate:g}" if width == widths[-1] else None
                axes[0][0].plot(range(1, len(reading.scale) + 1), reading.scale, marker="o", label=label, **look)
                axes[1][0].plot(range(1, len(reading.scale)), reading.angular_step, marker="o", **look)
        for depth, mark in zip(loops, "o^sDvP", strict=False):
            found = [(width, check.last(width, depth, rate)) for width in widths]
            there = [(width, reading) for width, reading in found if reading is not None]
            style = {"color": colour_of(i), "marker": mark}
            label = f"{depth} loops" if i == 0 else None
            axes[0][1].plot([w for w, _ in there], [r.scale[-1] for _, r in there], label=label, **style)
            turned = [(w, r.angular_step[-1]) for w, r in there if r.angular_step]
            axes[1][1].plot([w for w, _ in turned], [step for _, step in turned], **style)
    _name(axes[0][0], "RMS of the state", f"loop k of {loops[-1]} (paler: narrower)")
    _name(axes[1][0], "angular step to the next loop", "loop k")
    _name(axes[0][1], "RMS after the last loop", "width")
    _name(axes[1][1], "angular step to the last loop", "width")
    for row in axes:
        row[1].set_xscale("log", base=2)
        row[1].set_xticks(widths, [str(width) for width in widths])
        row[1].minorticks_off()
    for axis in (axes[0][0], axes[0][1]):
        if axis.get_legend_handles_labels()[0]:  # not where everything broke
            axis.legend(frameon=False)
    figure.suptitle("Loop check: steady" if check.steady else "Loop check: not steady", x=0.01, ha="left")
    return figure


def _name(axis: "Axes", y: str, x: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_yscale("log")
    axis.grid(visible=True)
