"""Disputed question: what an inter-loop norm adds or takes, at every exit and far past the trained depth.

The paper and an independent study disagree; models that differ in the norm alone are compared, seed by seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from loopscale.display import Table, signed
from loopscale.evaluate.statistics import interval_over_seeds

from ...cells import columns_of_conditions
from ...results import Results, Run
from ...topic import Topic, finite
from ..exits import PLAIN
from ..rates import at_best_rate
from .control import TOPIC as CONTROL
from .ranking import BLIND, entries

# without an inter-loop norm, with it
PAIRS = (
    (PLAIN, "per_loop-rmsnorm-normed"),
    (BLIND, "inter_loop_norm"),
    ("sandwich", "inter_loop_norm-sandwich"),
)


@final
@dataclass(frozen=True)
class NormEffect:
    """Loss with an inter-loop norm less that without, in nats: for every exit, one value per seed that both have."""

    without: str
    with_norm: str
    nats: dict[int, tuple[float, ...]]

    @property
    def seeds(self) -> int:
        """Return the number of seeds behind the trained exits."""
        return len(self.nats[1])


def norm_effects(results: Results) -> tuple[NormEffect, ...]:
    """Return the effect of the norm in every pair of the study that has it, each model at its best learning rate."""
    ways = {name: entry.runs for name, entry in entries(results).items()}
    runs = {name: ways[name] if name in ways else at_best_rate(results, name) for pair in PAIRS for name in pair}
    effects = []
    for without, with_norm in PAIRS:
        pairs = [(_losses(a), _losses(b)) for a, b in _shared(runs[with_norm], runs[without])]
        if pairs:
            exits = sorted(set.intersection(*(set(side) for pair in pairs for side in pair)))
            effects.append(NormEffect(without, with_norm, {k: tuple(a[k] - b[k] for a, b in pairs) for k in exits}))
    return tuple(effects)


def inter_loop_norm(results: Results) -> Table | None:
    """The disputed question: what an inter-loop norm adds in nats, at every exit, over the seeds that both have."""
    effects = norm_effects(results)
    exits = sorted({k for effect in effects for k in effect.nats})
    if not effects:
        return None
    rows = (
        (
            f"{effect.with_norm} over {effect.without}",
            *(difference(effect.nats[k]) if k in effect.nats else "–" for k in exits),
            str(effect.seeds),
        )
        for effect in effects
    )
    return Table(
        name="inter-loop-norm",
        title="The inter-loop norm, against none",
        caption="Difference of the losses in nats at every exit, each model at its best learning rate: negative is "
        "better with the norm. Mean with its 95% interval over seeds; past the trained depth on few windows.",
        columns=columns_of_conditions(*(f"exit {k}" for k in exits), "seeds"),
        rows=tuple(rows),
    )


def difference(values: Sequence[float]) -> str:
    """Return a mean difference over seeds with its interval; one seed has none."""
    around = interval_over_seeds(list(values))
    if around is None:
        return signed(values[0], 3) if values else "–"
    return f"{signed(around.value, 3)} [{signed(around.low, 3)}, {signed(around.high, 3)}]"


def _losses(run: Run) -> dict[int, float]:
    """Return nats per token by exit: those trained, and those far past them where they were measured."""
    far = record.far if (record := CONTROL.of(run)) else ()
    every = {**dict(enumerate(run.cross_entropy, 1)), **{point.exit: point.cross_entropy for point in far}}
    return {k: nats for k, value in every.items() if (nats := finite(value)) is not None}


def _shared(ours: Sequence[Run], theirs: Sequence[Run]) -> list[tuple[Run, Run]]:
    by_seed = {run.seed: run for run in theirs if not run.diverged}
    return [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed and not run.diverged]


TOPIC: Topic[None] = Topic(
    name="disputed",
    heading="Control of the scale",
    place=52,
    tables=(inter_loop_norm,),
)
