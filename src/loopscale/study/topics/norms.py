"""Norms: how long the state grows, loop by loop and over tokens, and what keeps it short."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from loopscale.display import Axis, Chart, Panel, Series, Table, mean_and_spread, number, readable_top, subscript

from .. import published
from ..best_rates import sentence_by_name
from ..cells import by_condition, columns_of_conditions, count_of, mean_of, over_seeds, seeds_said
from ..drawing import LINES, by_depth
from ..grid import condition_styles
from ..results import Results, Run
from ..topic import Claim, Drawing, Topic, at_least, below, finite, per_seed
from .audit import TOPIC as AUDIT
from .exits import PLAIN

if TYPE_CHECKING:
    from loopscale.audit import ScaleStats

FAR = 1e5  # times the shortest norms, one leaves the picture: blind ones are some thousand times as long
MARKS = {"median": "o", "99th percentile": "|", "largest": "d"}


def final_norm(run: Run) -> float:
    """Return ||H_K||, the mean norm of the state after the last trained loop."""
    return run.norm[-1]


def norm_ratio(run: Run, other: Run) -> float | None:
    """Return how many times larger the final norm of `run` is; None where the other norm is zero."""
    return final_norm(run) / final_norm(other) if final_norm(other) else None


def norms(results: Results) -> Table:
    """The norm of the state at every loop, one row per condition."""

    def cells(runs: tuple[Run, ...]) -> list[str]:
        loops = (mean_and_spread([run.norm[k] for run in runs]) for k in range(results.num_loops))
        return [*loops, count_of(runs)]

    loops = [f"loop {k}" for k in range(1, results.num_loops + 1)]
    return Table(
        name="norms",
        title="Norm of the state at every loop",
        caption=f"Mean ‖H_k‖ over the tokens of the validation split. {seeds_said(results)}",
        columns=columns_of_conditions(*loops, "seeds"),
        rows=by_condition(results, cells),
    )


def norm_distribution(results: Results) -> Table | None:
    """How the norm after the last trained loop spreads over tokens, one row per condition."""

    def cells(runs: Sequence[Run]) -> list[str]:
        return [
            over_seeds(runs, lambda run: _norm(run, "mean")),
            *(over_seeds(runs, partial(_norm, which=which)) for which in MARKS),
            over_seeds(runs, _largest_over_median),
        ]

    if not any(map(_last_norms, results.all_runs)):
        return None
    return Table(
        name="norm-distribution",
        title=f"Norm of single tokens after loop {results.num_loops}",
        caption=f"‖H_{results.num_loops}‖ over the tokens of the audit, fewer than those of Table 1. "
        f"{seeds_said(results)}",
        columns=columns_of_conditions("mean", *MARKS, "largest / median"),
        rows=by_condition(results, cells),
    )


def norm_spread(results: Results) -> Chart | None:
    """Draw median, 99th percentile and largest norm over tokens after the last trained loop, one row per condition."""
    rows = {name: _quantiles(condition.runs) for name, condition in results.conditions.items()}
    rows = {name: values for name, values in rows.items() if values}
    if not rows:
        return None
    styles, series = condition_styles(results), []
    for y, (name, values) in enumerate(rows.items()):
        series.append(Series(name, tuple(values), (float(y),) * len(values), styles[name], notes=tuple(MARKS)))
        for value, (which, mark) in zip(values, MARKS.items(), strict=True):
            point = Series(name, (value,), (float(y),), styles[name], mark, marks_only=True, notes=(which,))
            series.append(point)
    end = readable_top(rows.values(), FAR)
    norm = Axis(f"‖H{subscript(results.num_loops)}‖ over tokens: median, 99th percentile, largest", log=True, end=end)
    return Chart((Panel(norm, Axis("", names=tuple(rows)), tuple(series)),))


@sentence_by_name
def norms_sentence(results: Results) -> str | None:
    """Say where the scale ends, with and without something that controls it."""
    plain = mean_of(results.runs(PLAIN), final_norm)
    if plain is None:
        return None
    others = [
        f"{number(norm)} in {name}"
        for name in ("per_loop-raw", "per_loop-rmsnorm-penalty", "per_loop-rmsnorm-normed")
        if (norm := mean_of(results.runs(name), final_norm)) is not None
    ]
    records = [AUDIT.of(run) for run in results.runs(PLAIN)]
    blind = all(record is not None and record.verdicts["scale"] == "blind_spot" for record in records)
    said = f"the state of {PLAIN} ends at a mean norm of {number(plain)}"
    said += f", against {', '.join(others)}" if others else ""
    return f"The scale: {said}{'; the audit finds its scale a blind spot' if blind else ''}."


def _last_norms(run: Run) -> "ScaleStats | None":
    record = AUDIT.of(run)
    return record.norms[len(run.norm) - 1] if record is not None and len(record.norms) >= len(run.norm) else None


def _norm(run: Run, which: str) -> float | None:
    norms = _last_norms(run)
    if norms is None:
        return None
    known = {"mean": norms.norm, "median": norms.norm_median, "99th percentile": norms.norm_p99}
    return finite({**known, "largest": norms.norm_max}[which])


def _largest_over_median(run: Run) -> float | None:
    largest, median = _norm(run, "largest"), _norm(run, "median")
    return largest / median if largest is not None and median else None


def _quantiles(runs: Sequence[Run]) -> list[float]:
    read = [[_norm(run, which) for run in runs] for which in MARKS]
    known = [[norm for norm in norms if norm is not None] for norms in read]
    return [fmean(norms) for norms in known] if runs and known == read else []


_NORMS = ", ".join(f"{norm:,} ({size})" for size, norm in published.RMSNORM_FINAL_NORM.items())
_PENALTY_NORMS = "{} to {}".format(*published.PENALTY_FINAL_NORM)

TOPIC: Topic[None] = Topic(
    name="norms",
    heading="Norms",
    place=20,
    claims=(
        Claim(
            id="norm-ratio-raw",
            statement="Behind RMSNorm the per-loop loss lets the norm run away: many times that of raw readouts.",
            measure=per_seed(norm_ratio, PLAIN, "per_loop-raw"),
            threshold=at_least(10.0),
            published=f"{_NORMS} against {published.RAW_FINAL_NORM}",
        ),
        Claim(
            id="norm-ratio-penalty",
            statement="A penalty that sees the scale controls it: without one the norm is many times larger.",
            measure=per_seed(norm_ratio, PLAIN, "per_loop-rmsnorm-penalty"),
            threshold=at_least(10.0),
            published=f"{_NORMS} against {_PENALTY_NORMS}",
        ),
        Claim(
            id="penalty-bounds-norm",
            statement="The norm penalty keeps the final norm bounded.",
            measure=per_seed(final_norm, "per_loop-rmsnorm-penalty"),
            threshold=below(100.0),
            published=_PENALTY_NORMS,
            unit="",
        ),
    ),
    tables=(norms, norm_distribution),
    figures=(
        Drawing(
            name="norm-by-depth",
            title="The norm of the state, loop by loop",
            caption=f"Mean ‖H_k‖ over the validation tokens, run on to three times the trained depth. {LINES}",
            draw=partial(by_depth, curve=lambda run: run.norm_by_depth, label="mean ‖Hₖ‖", log_from=1.0, far=FAR),
        ),
        Drawing(
            name="norm-spread",
            title="The norm of single tokens at the trained depth",
            caption="Median, 99th percentile and largest norm over the tokens of the audit.",
            draw=norm_spread,
        ),
    ),
    sentence=norms_sentence,
)
