"""Looping: what more loops are worth, and where they are worth nothing."""

import math
from collections.abc import Sequence
from statistics import fmean

from loopscale.display import Column, Table

from .. import published
from ..cells import agreed, by_condition, columns_of_conditions, over_seeds, seeds_said
from ..results import Results, Run
from ..topic import Claim, Topic, above, against, at_most, per_seed, ratio_of_perplexities
from .exits import PLAIN

BAND = 1.01  # exits up to this many times the best exit's perplexity are as good


def useful_band(perplexities: Sequence[float]) -> tuple[int, int]:
    """Return the first and the last exit around the best one whose perplexities are within 1% of its."""
    known = [value if math.isfinite(value) else math.inf for value in perplexities]
    best = known.index(min(known))
    first = last = best
    while first > 0 and known[first - 1] <= BAND * known[best]:
        first -= 1
    while last + 1 < len(known) and known[last + 1] <= BAND * known[best]:
        last += 1
    return first + 1, last + 1


def depth_gain(run: Run) -> float:
    """Return exit 1's perplexity over that of the best exit up to the trained depth: what looping is worth."""
    return ratio_of_perplexities(run.cross_entropy[0] - min(run.cross_entropy))


def dominated_exits(runs: Sequence[Run]) -> dict[int, int]:
    """Return the exits that are no better than an earlier one, and the best earlier one of each; means over seeds."""
    nats = [fmean(run.cross_entropy[k] for run in runs) for k in range(len(runs[0].cross_entropy))] if runs else []
    best = {k: min(range(k), key=nats.__getitem__) for k in range(1, len(nats))}
    return {k + 1: best[k] + 1 for k in best if nats[k] >= nats[best[k]]}


def looping(results: Results) -> Table | None:
    """What looping is worth: depth gain, useful band and exits that an earlier one dominates; a row per condition."""

    def cells(runs: tuple[Run, ...]) -> list[str]:
        bands = (useful_band(run.perplexity_by_depth) for run in runs if not run.diverged)
        dominated = {} if any(run.diverged for run in runs) else dominated_exits(runs)
        return [
            over_seeds(runs, lambda run: None if run.diverged else depth_gain(run)),
            agreed([f"{first} to {last}" for first, last in bands]) or "–",
            ", ".join(f"{k} (by {by})" for k, by in dominated.items()) or "–",
        ]

    rows = by_condition(results, cells)
    if not rows:
        return None
    deepest = max(len(run.perplexity_by_depth) for run in results.all_runs)
    return Table(
        name="looping",
        title="What looping is worth",
        caption="Depth gain: exit 1's perplexity over that of the best exit up to the trained depth. Useful band: the "
        f"exits within 1% of the best, of {deepest}. Dominated: exits up to the trained depth that are no better than "
        f"an earlier, cheaper one, means over seeds. {seeds_said(results)}",
        columns=(
            *columns_of_conditions("depth gain"),
            Column("useful band"),
            Column("dominated exits"),
        ),
        rows=rows,
    )


def looping_sentence(results: Results) -> str | None:
    """Say where looping stops to pay: exits that an earlier one dominates, or no exit better than the first."""
    stops, never = [], []
    for name, condition in results.conditions.items():
        runs = condition.runs
        if condition.model.get("supervision") == "terminal" or not runs or any(run.diverged for run in runs):
            continue
        dominated = dominated_exits(runs)
        best = max(set(range(1, results.num_loops + 1)) - dominated.keys())  # the last that none dominates
        late = [k for k in dominated if k > best]
        if fmean(map(depth_gain, runs)) <= BAND:
            never.append(name)
        elif late:
            exits = f"exit{'s' if len(late) > 1 else ''} {' and '.join(map(str, late))}"
            stops.append(f"at exit {best} in {name} ({exits} no better)")
    said = [f"looping stops to pay {', '.join(stops)}"] if stops else []
    if never:
        who = "it" if stops else "looping"
        said.append(f"{who} does not pay at all in {', '.join(never)} (no exit 1% better than exit 1)")
    return f"The loops: {'; '.join(said)}." if said else None


def _published_gain(condition: str) -> str:
    exits = published.PERPLEXITY_129M[condition]
    return against(exits[0], min(exits))


def _keeps_improving(id: str, condition: str) -> Claim:
    return Claim(
        id=f"keeps-improving-{id}",
        statement=f"Looping pays in {condition}: the best exit is more than 1% better than exit 1.",
        measure=per_seed(depth_gain, condition),
        threshold=above(BAND),
        published=_published_gain(condition),
    )


TOPIC: Topic[None] = Topic(
    name="looping",
    heading="Depth and halting",
    place=43,
    claims=(
        *(
            _keeps_improving(id, condition)
            for id, condition in (
                ("raw", "per_loop-raw"),
                ("final_rmsnorm", "per_loop-final_rmsnorm"),
                ("penalty", "per_loop-rmsnorm-penalty"),
            )
        ),
        Claim(
            id="keeps-improving-rmsnorm",
            statement="Looping does nothing for plain RMSNorm readouts: no exit is 1% better than exit 1.",
            measure=per_seed(depth_gain, PLAIN),
            threshold=at_most(BAND),
            published=_published_gain(PLAIN),
        ),
    ),
    tables=(looping,),
    sentence=looping_sentence,
)
