"""Advice: what a study says to do, in words: which control of the scale, what it costs, which exit, what is open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

from loopscale.display import number, percent
from loopscale.evaluate.statistics import Interval, interval_over_seeds

from ..best_rates import best_names
from ..grid import split_rate
from ..results import Results, Run
from ..topic import SEED_NOISE, ratio_of_perplexities
from ..topics.audit import scale_verdict
from ..topics.depth import exit_of
from ..topics.looping import BAND

CONTROLLED = {"visible", "removed"}
NAMED = 4  # conditions that a sentence names


@final
@dataclass(frozen=True)
class Point:
    """One question with its answer; `open`: the runs do not decide it."""

    question: str
    answer: str
    open: bool = False


@final
@dataclass(frozen=True)
class Advice:
    """The result in a sentence, and what it rests on."""

    headline: str
    points: tuple[Point, ...]


def advice(results: Results) -> Advice | None:
    """Return what to do by the runs of a judged study, each condition at the best of its learning rates.

    None without a run that ended well.
    """
    every = {name: c.runs for name, c in results.conditions.items() if c.runs and not any(r.diverged for r in c.runs)}
    if not every:
        return None
    sound = {name: every[name] for name in best_names(results).values() if name in every}
    verdicts = {name: {scale_verdict(run) for run in runs} for name, runs in sound.items()}
    blind = [name for name, found in verdicts.items() if "blind_spot" in found]
    controlled = [name for name, found in verdicts.items() if found <= CONTROLLED]
    every_loop = [name for name in sound if results.conditions[name].model.get("supervision") != "terminal"]
    pick = _best(sound, [name for name in controlled if name in every_loop] or controlled or every_loop or list(sound))
    others = [name for name in blind if (name in every_loop) == (pick in every_loop)] or blind
    plain = _best(sound, others) if others else None
    cost = None if plain is None or pick in blind else _ratio(sound[pick], sound[plain])
    alike = [name for name in controlled if (name in every_loop) == (pick in every_loop)]
    points = [_scale(every, blind, controlled), _choice(sound, pick, alike)]
    points += [] if cost is None or plain is None or math.isnan(cost.value) else [_cost(cost, plain)]
    points += [_exit(results, pick, sound[pick]), _open(results)]
    return Advice(_headline(pick, plain, cost, bool(controlled)), tuple(point for point in points if point))


def _headline(pick: str, plain: str | None, cost: "_Ratio | None", audited: bool) -> str:
    if cost is not None and cost.decided and cost.value > 1:
        return (
            f"No control of the scale is free here: the best, {pick}, has {number(cost.value, 3)} times the perplexity "
            f"of {plain}, which leaves the scale alone."
        )
    if cost is not None:
        worth = "what it costs in perplexity is not decided"
        if math.isnan(cost.value):
            worth = "what it costs is not known, since they have no seed in common"
        if cost.decided:
            worth = f"its perplexity is {percent(1 - cost.value, 1 if cost.value > 0.9 else 0)} lower"
        return f"Use {pick}: it controls the scale of the state, which {plain} leaves alone; {worth}."
    if plain is not None:
        return f"No condition controls the scale of the state: {plain} leaves it to itself, and so do all others."
    if audited:
        return f"The scale of the state is controlled in every condition that was audited; use {pick}."
    return f"{pick} has the lowest perplexity; whether its loss controls the state was not measured."


def _scale(every: dict[str, tuple[Run, ...]], blind: Sequence[str], controlled: Sequence[str]) -> Point | None:
    """Name where the scale is controlled, and how far it went where not, at any learning rate."""
    if not blind and not controlled:
        return None
    said = ""
    if blind:
        stems = {split_rate(name)[0] for name in blind}
        norms = {
            name: fmean(run.norm[-1] for run in runs) for name, runs in every.items() if split_rate(name)[0] in stems
        }
        far = max(norms, key=lambda name: norms[name])
        said = f"Not in {_names(blind)}: no loss sees it and the loop carries it on (to {number(norms[far])} in {far})."
    if controlled:
        said += f" {'It is' if blind else 'Yes,'} in {_names(controlled)}."
    return Point("Is the scale controlled?", said.strip())


def _choice(sound: dict[str, tuple[Run, ...]], pick: str, controlled: Sequence[str]) -> Point:
    place, loss = _best_exit(sound[pick])
    pool = "those that control the scale" if pick in controlled else "all"
    said = f"{pick}: the lowest perplexity of {pool}, {number(math.exp(loss))} at exit {place}."
    rivals = [name for name in controlled if name != pick and not _ratio(sound[name], sound[pick]).decided]
    if rivals:
        said += f" Against {_names(rivals)} it is not decided."
    return Point("Which control?" if pick in controlled else "Which condition?", said, open=bool(rivals))


def _cost(cost: "_Ratio", plain: str) -> Point:
    around = f" [{number(cost.around.low, 3)}, {number(cost.around.high, 3)}]" if cost.around else ""
    of = plain if cost.around else f"{plain} (one seed)"
    word = ("better" if cost.value < 1 else "worse") if cost.decided else "not decided"
    said = f"{number(cost.value, 3)}{around} times the perplexity of {of}, each at its best exit: {word}."
    return Point("What does it cost?", said, open=not cost.decided)


def _exit(results: Results, pick: str, runs: Sequence[Run]) -> Point:
    nats = _mean_nats(runs)
    best = min(nats)
    first = next(k for k, loss in enumerate(nats, 1) if loss - best <= math.log(BAND))
    said = f"Exit {first} of {results.num_loops} in {pick}: the first within 1% of its best."
    found = [(exit_of(run, "trained", first - 1), exit_of(run, "trained", results.num_loops - 1)) for run in runs]
    shares = [ours.flops / full.flops for ours, full in found if ours and full and ours.flops and full.flops]
    if shares and first < results.num_loops:
        said += f" It takes {percent(fmean(shares))} of full depth's operations."
    return Point("Which exit?", said)


def _open(results: Results) -> Point | None:
    undecided = [claim.id for claim in results.claims if claim.verdict == "undecided"]
    if not undecided:
        return None
    said = f"{len(undecided)} of {len(results.claims)} claims: {_names(undecided)}. More seeds narrow their intervals."
    return Point("What is not decided?", said, open=True)


@final
@dataclass(frozen=True)
class _Ratio:
    """Perplexity of one condition over another's, with its interval over the seeds that both have."""

    value: float
    around: Interval | None

    @property
    def decided(self) -> bool:
        """Whether it is surely not 1: by the interval, or from one seed by far."""
        low, high = (
            (self.around.low, self.around.high) if self.around else (self.value / SEED_NOISE, self.value * SEED_NOISE)
        )
        return high < 1 or low > 1


def _ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> _Ratio:
    """Return the ratio of perplexities, each at its best exit; NaN without a seed that both have."""
    by_seed = {run.seed: min(run.cross_entropy) for run in theirs}
    nats = [min(run.cross_entropy) - by_seed[run.seed] for run in ours if run.seed in by_seed]
    if not nats:
        return _Ratio(math.nan, None)
    found = interval_over_seeds(nats)
    ends = found and Interval(*(ratio_of_perplexities(value) for value in (found.value, found.low, found.high)))
    return _Ratio(ratio_of_perplexities(fmean(nats)), ends)


def _mean_nats(runs: Sequence[Run]) -> list[float]:
    return [fmean(column) for column in zip(*(run.cross_entropy for run in runs), strict=True)]


def _best_exit(runs: Sequence[Run]) -> tuple[int, float]:
    nats = _mean_nats(runs)
    return nats.index(min(nats)) + 1, min(nats)


def _best(sound: dict[str, tuple[Run, ...]], names: Sequence[str]) -> str:
    return min(names, key=lambda name: _best_exit(sound[name])[1])


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
