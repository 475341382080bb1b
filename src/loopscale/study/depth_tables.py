"""Tables of depth: what every exit is worth and costs, which depths are safe, and what halting saves."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .extras import at, found, number_at, over_seeds
from .results import Results, Run
from .summary import number
from .table import Column, Table, over

NOISY = "Runs are timed one by one, while others may share the processor: speeds are noisy."


def depth(results: Results) -> Table | None:
    """Perplexity, bits per byte and cost of every exit up to the trained depth."""
    rows = tuple(
        (
            name,
            str(k + 1),
            over_seeds(runs, at(*place, "perplexity")),
            over_seeds(runs, at(*place, "perplexity_se")),
            over_seeds(runs, at(*place, "bits_per_byte")),
            over_seeds(runs, _bits_error(*place)),
            over_seeds(runs, _millions(*place, "flops")),
            over_seeds(runs, at(*place, "tokens_per_second")),
        )
        for name, reading, runs in _readings(results)
        for k in range(results.num_loops)
        for place in [("depth", reading, "exits", k)]
    )
    if not rows:
        return None
    return Table(
        name="depth",
        title="What every exit is worth, and what it costs",
        caption="se: standard error over windows. FLOPs: of one token's forward pass to that exit. A model with a "
        f"normalised last exit is read as trained, and with every exit normalised. {NOISY} {over(results)}",
        columns=(
            Column("condition"),
            *(
                Column(name, numeric=True)
                for name in ("exit", "perplexity", "se", "bits per byte", "se", "MFLOPs", "tokens/s")
            ),
        ),
        rows=rows,
        section="depth",
    )


def safe_range(results: Results) -> Table | None:
    """Which exits, past the trained depth too, are about as good as the trained one; one row per run and reading."""
    rows = tuple(
        (
            _named(results, name, run),
            f"{safe['first']} to {safe['last']}",
            str(safe["best"]),
            str(safe["turns_up_at"] or "–"),
            number(safe["norm_trained"]),
            number(safe["norm_deepest"]),
        )
        for name, reading, runs in _readings(results)
        for run in runs
        if (safe := found(run, "depth", reading, "safe_range")) and None not in _norms(safe)
    )
    if not rows:
        return None
    return Table(
        name="safe-range",
        title="Which depths are safe",
        caption="Safe: exits around the trained depth at most 1% above its perplexity. Turns up: the first deeper exit "
        f"above that, of {max(_depths(results))} measured. Norms: at the trained depth and at the deepest exit.",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in ("safe exits", "best", "turns up at", "norm", "norm, deepest")),
        ),
        rows=rows,
        section="depth",
    )


def halting(results: Results) -> Table | None:
    """The rule of each level that saves the most loops and keeps its target, one row per run and level."""
    rows = tuple(
        (_named(results, name, run), level, *_halting_cells(found(run, "halting"), level))
        for name, condition in results.conditions.items()
        for run in condition.runs
        for level in found(run, "halting", "oracle") or ()
    )
    if not rows:
        return None
    return Table(
        name="halting",
        title="Halting: loops and time saved at a kept quality",
        caption="The rule that runs the fewest loops among those that keep their target: a perplexity at most 1.01 "
        "times that of full depth, calibrated on some windows and reported on others, with 95% intervals over windows. "
        "Selected: mean exit of a token; executed: loops that ran for it; time: of whole batches against full depth. "
        f"Oracle: selected loops of a choice that knows the labels, the bound. {NOISY}",
        columns=(
            Column("condition"),
            Column("per"),
            Column("rule"),
            *(
                Column(name, numeric=True)
                for name in ("selected", "executed", "relative perplexity", "loops saved", "time saved", "oracle")
            ),
        ),
        rows=rows,
        section="depth",
    )


def _halting_cells(report: Mapping[str, Any], level: str) -> tuple[str, ...]:
    """Return rule, loops, quality, savings and bound of the rule that was timed: the best one that kept its target."""
    bound = number(report["oracle"][level]["selected_loops"])
    for time in report["times"]:
        if time["rule"]["level"] == level:
            (row,) = (row for row in report["results"] if row["rule"] == time["rule"])
            quality = row["relative_perplexity"]
            return (
                time["rule"]["rule"],
                f"{row['selected_loops']['value']:.2f}",
                f"{row['executed_loops']['value']:.2f}",
                f"{quality['value']:.4f} [{quality['low']:.4f}, {quality['high']:.4f}]",
                f"{time['loop_saving']:.0%}",
                f"{time['time_saving']:.0%}",
                bound,
            )
    return ("none keeps it", *("–" for _ in range(5)), bound)


def _readings(results: Results) -> Iterator[tuple[str, str, tuple[Run, ...]]]:
    """Yield name, reading and runs of every condition under every reading of its exits."""
    for name, condition in results.conditions.items():
        measured = tuple(run for run in condition.runs if found(run, "depth"))
        for reading in dict.fromkeys(reading for run in measured for reading in found(run, "depth")):
            yield name if reading == "trained" else f"{name}, {reading}", reading, measured


def _named(results: Results, name: str, run: Run) -> str:
    return f"{name}, seed {run.seed}" if len(results.seeds) > 1 else name


def _depths(results: Results) -> list[int]:
    return [len(run.norm_by_depth) for condition in results.conditions.values() for run in condition.runs]


def _norms(safe: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return safe["norm_trained"], safe["norm_deepest"]


def _bits_error(*place: str | int) -> Callable[[Run], float | None]:
    """Return the standard error of bits per byte, in the same proportion as that of the nats they stand for."""

    def error(run: Run) -> float | None:
        bits, nats, se = (number_at(run, *place, key) for key in ("bits_per_byte", "cross_entropy", "cross_entropy_se"))
        return None if bits is None or se is None or not nats else bits * se / nats

    return error


def _millions(*place: str | int) -> Callable[[Run], float | None]:
    def figure(run: Run) -> float | None:
        value = number_at(run, *place)
        return None if value is None else value / 1e6

    return figure
