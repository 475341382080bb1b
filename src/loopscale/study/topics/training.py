"""Training: how the norm of the state grows from step to step, which the last step alone does not show."""

import math
from collections.abc import Iterator, Sequence

from loopscale.display import Table, mean_and_spread, subscript

from ..cells import by_condition, columns_of_conditions, seeds_said
from ..drawing import LINES, over_training
from ..results import Results, Run
from ..topic import Drawing, Topic, finite

FAR_NORM = 1e5  # times the shortest norms, one leaves the picture
FAR_LOSS = 4.0  # times the lowest losses: the first steps would flatten all that follow


def norm_by_step(run: Run) -> dict[int, float]:
    """Return the norm after the last loop at every logged training step."""
    key = f"loop_norms/{len(run.norm)}"
    return {step: norm for step, line in _lines(run) if (norm := finite(line.get(key))) is not None}


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


def loss_by_step(run: Run) -> dict[int, float]:
    """Return the training loss at every logged step; what is not finite stays so."""
    return {step: line["loss"] for step, line in _lines(run) if "loss" in line}


def _lines(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the steps of the log lines with their numbers; None in a file is what is not finite."""
    for line in run.measured.get("history") or ():
        if "step" in line:
            yield line["step"], {key: math.nan if value is None else value for key, value in line.items()}


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
            draw=lambda results: over_training(
                results, norm_by_step, f"mean ‖H{subscript(results.num_loops)}‖", FAR_NORM
            ),
        ),
        Drawing(
            name="loss-over-training",
            title="The training loss, step by step",
            caption="What was minimised, a mean over the steps since the last log line: over the supervised exits, and "
            f"with the penalty where there is one, so that only lines of one kind compare. {LINES}",
            draw=lambda results: over_training(results, loss_by_step, "training loss (nats a token)", FAR_LOSS),
        ),
    ),
)
