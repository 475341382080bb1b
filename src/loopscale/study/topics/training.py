"""Training: how the norm of the state grows from step to step, which the last step alone does not show."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from loopscale.display import Table, draw_label, mean_and_spread, styled

from ..cells import by_condition, columns_of_conditions, seeds_said
from ..drawing import LINES
from ..grid import condition_styles
from ..results import Results, Run
from ..topic import Drawing, Topic, finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def norm_by_step(run: Run) -> dict[int, float]:
    """Return the norm after the last loop at every logged training step."""
    key = f"loop_norms/{len(run.norm)}"
    lines = run.measured.get("history") or ()
    return {line["step"]: norm for line in lines if (norm := finite(line.get(key))) is not None}


def norm_growth(results: Results) -> Table | None:
    """How the norm after the last loop goes over training: first, largest with its step, last; a row per condition."""

    def cells(runs: Sequence[Run]) -> list[str]:
        curves = [curve for run in runs if (curve := norm_by_step(run))]
        peaks = [max(curve, key=lambda step: curve[step]) for curve in curves]
        return [
            mean_and_spread([next(iter(curve.values())) for curve in curves]),
            mean_and_spread([curve[peak] for curve, peak in zip(curves, peaks, strict=True)]),
            mean_and_spread([float(peak) for peak in peaks]),
            mean_and_spread([[*curve.values()][-1] for curve in curves]),
        ]

    if not any(map(norm_by_step, results.all_runs)):
        return None
    return Table(
        name="norm-growth",
        title="The norm over training",
        caption=f"Mean ‖H_{results.num_loops}‖ over the tokens of a training step: first logged, largest and last. "
        f"{seeds_said(results)}",
        columns=columns_of_conditions("first", "largest", "at step", "last"),
        rows=by_condition(results, cells),
    )


@styled
def norm_over_training(results: Results) -> "Figure | None":
    """Draw the norm after the last loop against training steps: mean over seeds, band from least to greatest."""
    from matplotlib.figure import Figure

    curves = {name: [norm_by_step(run) for run in c.runs] for name, c in results.conditions.items()}
    curves = {name: found for name, found in curves.items() if found and all(found)}
    if not curves:
        return None
    styles = condition_styles(results)
    figure = Figure(figsize=(9.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for name, found in sorted(curves.items(), key=lambda pair: -[*pair[1][0].values()][-1]):
        steps = sorted(set.intersection(*(set(curve) for curve in found)))
        rows = [[curve[step] for curve in found] for step in steps]
        axes.plot(steps, [fmean(row) for row in rows], label=draw_label(name), **{**styles[name].line, "marker": ""})
        if len(found) > 1:
            low, high = [min(row) for row in rows], [max(row) for row in rows]
            axes.fill_between(steps, low, high, color=styles[name].colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="training step", ylabel=rf"mean $\|H_{{{results.num_loops}}}\|_2$ (log scale)", yscale="log")
    axes.grid(axis="y")
    figure.legend(loc="outside right upper", frameon=False, handlelength=2.8, labelspacing=0.7)
    return figure


TOPIC: Topic[None] = Topic(
    name="training",
    heading="Norms",
    place=21,
    tables=(norm_growth,),
    figures=(
        Drawing(
            name="norm-over-training",
            title="The norm of the state, step by step of training",
            caption=f"Mean ‖H_K‖ over the tokens of the step, after the last loop. {LINES}",
            draw=norm_over_training,
        ),
    ),
)
