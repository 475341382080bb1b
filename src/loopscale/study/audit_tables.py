"""Tables of the audit: what the losses see of scale and the loop keeps of it, and how norms spread over tokens."""

from collections.abc import Sequence
from statistics import fmean

from .extras import agreed, at, found, number_at, numbers_at, over_seeds
from .results import Results, Run
from .table import Column, Table, by_condition, over

SCALE = ("audit", "audit", "coordinates", "scale")
LOSSES = {"cross_entropy": "cross-entropy"}  # the others are called as they are
IN_WORDS = {"blind spot": "a blind spot"}
SPREAD = {"median": "norm_median", "99th percentile": "norm_p99", "largest": "norm_max"}


def audit(results: Results) -> Table | None:
    """What the losses see of scale, what the loop keeps, and the verdicts; one row per condition."""

    def cells(runs: Sequence[Run]) -> list[str]:
        return [
            over_seeds(runs, at(*SCALE, "visibility", 0)),
            over_seeds(runs, at(*SCALE, "visibility", results.num_loops - 1)),
            over_seeds(runs, at(*SCALE, "retention", -1)),
            over_seeds(runs, _drift),
            agreed([scale_verdict(run) for run in runs]),
            agreed([_words(found(run, "audit", "verdicts", "mean")) for run in runs]),
        ]

    if not _any(results, *SCALE):
        return None
    return Table(
        name="audit",
        title="Audit: does a loss see the scale of the state, and does the loop keep it?",
        caption="Visibility: share of the gradient of that exit's cross-entropy that moves the scale. Retention: share "
        "of a small change of the last loop's scale left after one more loop. Drift: e-folds per loop, mean. Verdicts "
        f"name the loss that sees, in brackets; mean: the state's component along the ones vector. {over(results)}",
        columns=(
            Column("condition"),
            Column("visibility, exit 1", numeric=True),
            Column(f"visibility, exit {results.num_loops}", numeric=True),
            Column("retention", numeric=True),
            Column("drift", numeric=True),
            Column("scale"),
            Column("mean"),
        ),
        rows=by_condition(results, cells),
        section="audit",
    )


def norm_distribution(results: Results) -> Table | None:
    """How the norm after the last trained loop spreads over tokens, one row per condition."""
    last = results.num_loops - 1

    def cells(runs: Sequence[Run]) -> list[str]:
        quantiles = [over_seeds(runs, at("audit", "norms", last, key)) for key in ("norm", *SPREAD.values())]
        return [*quantiles, over_seeds(runs, _largest_over_median)]

    if not _any(results, "audit", "norms", last):
        return None
    return Table(
        name="norm-distribution",
        title=f"Norm of single tokens after loop {results.num_loops}",
        caption=f"‖H_{results.num_loops}‖ over the tokens of the audit, fewer than those of Table 1. {over(results)}",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in ("mean", *SPREAD, "largest / median")),
        ),
        rows=by_condition(results, cells),
        section="norms",
    )


def scale_verdict(run: Run) -> str:
    """Return the verdict on scale in words, with the losses that see it."""
    verdict = _words(found(run, "audit", "verdicts", "scale"))
    seen_by = found(run, *SCALE, "seen_by") or {}
    return f"{verdict} ({', '.join(LOSSES.get(loss, loss) for loss in seen_by)})" if seen_by else verdict


def verdict_line(results: Results) -> str | None:
    """Return the verdicts on scale of all conditions in one line, None without an audit."""
    conditions: dict[str, list[str]] = {}
    for name, condition in results.conditions.items():
        verdicts = [verdict for run in condition.runs if (verdict := found(run, "audit", "verdicts", "scale"))]
        if verdicts:
            conditions.setdefault(agreed([_words(verdict) for verdict in verdicts]), []).append(name)
    if not conditions:
        return None
    parts = (f"{IN_WORDS.get(verdict, verdict)} in {', '.join(names)}" for verdict, names in conditions.items())
    return f"Scale is {'; '.join(parts)}."


def _drift(run: Run) -> float | None:
    drift = numbers_at(run, *SCALE, "drift")
    return fmean(drift) if drift else None


def _largest_over_median(run: Run) -> float | None:
    largest, median = (number_at(run, "audit", "norms", len(run.norm) - 1, key) for key in ("norm_max", "norm_median"))
    return largest / median if largest is not None and median else None


def _words(verdict: str | None) -> str:
    return "–" if verdict is None else verdict.replace("_", " ")


def _any(results: Results, *path: str | int) -> bool:
    runs = (run for condition in results.conditions.values() for run in condition.runs)
    return any(found(run, *path) is not None for run in runs)
