"""Depth: what every exit is worth and costs, past the trained depth too, and which depths are safe."""

from collections.abc import Callable, Iterator
from functools import partial

from loopscale.data import Data
from loopscale.display import Table, number
from loopscale.evaluate import DepthReport, ExitPoint, SafeRange, run_depth
from loopscale.model import LoopedForCausalLM

from ..cells import columns_of_conditions, over_seeds, seeds_said
from ..drawing import LINES, by_depth
from ..results import Results, Run
from ..topic import (
    Claim,
    Drawing,
    Topic,
    at_most,
    finite,
    per_seed,
    valid_batches,
)

BATCHES = 4
BATCH_SIZE = 32
FAR = 100.0  # times the best perplexities, an exit leaves the picture: it would flatten the others
NOISY = "Runs are timed one by one, while others may share the processor: speeds are noisy."


DepthRecord = dict[str, DepthReport]  # by reading, "trained" first


def depth_of(model: LoopedForCausalLM, data: Data) -> DepthRecord:
    """Return the curves to 3K with their costs, by reading, on windows spread over the valid split."""
    return run_depth(model, valid_batches(model, data, BATCH_SIZE, BATCHES), bytes_per_token=data.bytes_per_token)


def exit_costs(results: Results) -> Table | None:
    """Perplexity, bits per byte and cost of every exit up to the trained depth."""

    def cells(runs: tuple[Run, ...], reading: str, k: int) -> list[str]:
        def over(figure: Callable[[ExitPoint], float | None]) -> str:
            return over_seeds(runs, lambda run: (found := exit_of(run, reading, k)) and finite(figure(found)))

        return [
            over(lambda found: found.perplexity),
            over(lambda found: found.perplexity_se),
            over(lambda found: found.bits_per_byte),
            over(_bits_error),
            over(lambda found: found.flops and found.flops / 1e6),
            over(lambda found: found.tokens_per_second),
        ]

    rows = tuple(
        (name, str(k + 1), *cells(runs, reading, k))
        for name, reading, runs in _readings(results)
        for k in range(results.num_loops)
    )
    if not rows:
        return None
    return Table(
        name="depth",
        title="What every exit is worth, and what it costs",
        caption="se: standard error over windows. FLOPs: of one token's forward pass to that exit. A model with a "
        f"normalised last exit is read as trained, and with every exit normalised. {NOISY} {seeds_said(results)}",
        columns=columns_of_conditions("exit", "perplexity", "se", "bits per byte", "se", "MFLOPs", "tokens/s"),
        rows=rows,
    )


def safe_range(results: Results) -> Table | None:
    """Which exits, past the trained depth too, are about as good as the trained one; one row per run and reading."""
    rows = tuple(
        (
            named_run(results, name, run),
            f"{safe.first} to {safe.last}",
            str(safe.best),
            str(safe.turns_up_at or "–"),
            number(safe.norm_trained),
            number(safe.norm_deepest),
        )
        for name, reading, runs in _readings(results)
        for run in runs
        if (safe := _safe(run, reading)) and None not in (finite(safe.norm_trained), finite(safe.norm_deepest))
    )
    if not rows:
        return None
    deepest = max(len(run.norm_by_depth) for run in results.all_runs)
    return Table(
        name="safe-range",
        title="Which depths are safe",
        caption="Safe: exits around the trained depth at most 1% above its perplexity. Turns up: the first deeper exit "
        f"above that, of {deepest} measured. Norms: at the trained depth and at the deepest exit.",
        columns=columns_of_conditions("safe exits", "best", "turns up at", "norm", "norm, deepest"),
        rows=rows,
    )


def named_run(results: Results, name: str, run: Run) -> str:
    """Return a condition's name, with the seed where there are several."""
    return f"{name}, seed {run.seed}" if len(results.seeds) > 1 else name


def growth_past_depth(run: Run) -> float | None:
    """Return the norm at the deepest loop measured over the norm at the trained depth."""
    return run.norm_by_depth[-1] / run.norm[-1] if run.norm[-1] else None


def exit_of(run: Run, reading: str, k: int) -> ExitPoint | None:
    """Return exit k + 1 of a run under a reading, None where it was not measured."""
    record = TOPIC.of(run) or {}
    exits = record[reading].exits if reading in record else ()
    return exits[k] if k < len(exits) else None


def _safe(run: Run, reading: str) -> SafeRange | None:
    record = TOPIC.of(run) or {}
    return record[reading].safe_range if reading in record else None


def _readings(results: Results) -> Iterator[tuple[str, str, tuple[Run, ...]]]:
    """Yield name, reading and runs of every condition under every reading of its exits."""
    for name, condition in results.conditions.items():
        measured = tuple(run for run in condition.runs if TOPIC.of(run))
        for reading in dict.fromkeys(reading for run in measured for reading in TOPIC.of(run) or ()):
            yield name if reading == "trained" else f"{name}, {reading}", reading, measured


def _bits_error(found: ExitPoint) -> float | None:
    """Return the standard error of bits per byte, in the same proportion as that of the nats they stand for."""
    if found.bits_per_byte is None or not found.cross_entropy:
        return None
    return found.bits_per_byte * found.cross_entropy_se / found.cross_entropy


TOPIC: Topic[DepthRecord] = Topic(
    name="depth",
    heading="Depth and halting",
    place=40,
    record=DepthRecord,
    measure=depth_of,
    claims=(
        Claim(
            id="inter-loop-norm",
            statement="An inter-loop norm takes scale out of the loop: past the trained depth the norm no longer "
            "grows.",
            measure=per_seed(growth_past_depth, "per_loop-rmsnorm-normed"),
            threshold=at_most(1.1),
            published=None,
        ),
    ),
    tables=(exit_costs, safe_range),
    figures=(
        Drawing(
            name="perplexity-by-depth",
            title="Perplexity at every exit",
            caption="Perplexity of the validation split, decoded after loop k, past the trained depth as well. "
            + LINES,
            draw=partial(
                by_depth, curve=lambda run: run.perplexity_by_depth, label="perplexity", log_from=5.0, far=FAR
            ),
        ),
    ),
)
