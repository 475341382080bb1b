"""Looping: what more loops are worth, and where they are worth nothing."""

import math
from collections.abc import Sequence
from statistics import fmean

from loopscale.display import Axis, Chart, Column, Panel, Rule, Series, Table, readable_top

from .. import published
from ..best_rates import sentence_by_name
from ..cells import agreed, by_condition, columns_of_conditions, over_seeds, seeds_said
from ..grid import condition_styles
from ..results import Results, Run
from ..topic import Claim, Drawing, Topic, above, against, at_most, per_seed, ratio_of_perplexities
from .exits import PLAIN

BAND = 1.01  # exits up to this many times the best exit's perplexity are as good

FAR = 3.0  # times the least gain: of a model whose first exits were never trained
SPREAD = 0.7  # of a row's height, for the seeds of a condition


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


def bands(results: Results) -> Chart | None:
    """Draw the useful band of every run, and what looping is worth to it; a row per condition."""
    measured = {
        name: [run for run in condition.runs if not run.diverged] for name, condition in results.conditions.items()
    }
    measured = {name: runs for name, runs in measured.items() if runs}
    if not measured:
        return None
    styles, exits, gains = condition_styles(results), [], []
    for row, (name, runs) in enumerate(measured.items()):
        for i, run in enumerate(runs):
            y = row + SPREAD * ((i + 0.5) / len(runs) - 0.5)
            first, last = useful_band(run.perplexity_by_depth)
            gain, seed = depth_gain(run), f"seed {run.seed}"
            notes = (f"{seed}: first exit of the band", f"{seed}: last exit of the band")
            exits.append(Series(name, (float(first), float(last)), (y, y), styles[name], "|", notes=notes))
            gains.append(Series(name, (gain,), (y,), styles[name], "o", marks_only=True, notes=(seed,)))
    rows, trained = Axis("", names=tuple(measured)), results.num_loops
    band = Panel(
        Axis("useful band (exits)", whole=True), rows, tuple(exits), (Rule("x", trained, f"trained {trained}"),)
    )
    end = readable_top([s.x for s in gains], FAR)
    gain_axis = Axis("depth gain (times)", log=True, end=end)
    return Chart((band, Panel(gain_axis, rows, tuple(gains), (Rule("x", BAND, "1% better"),))))


@sentence_by_name
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
    figures=(
        Drawing(
            name="useful-band",
            title="Which exits are good, and what looping is worth",
            caption="Left: the exits within 1% of the best one's perplexity, past the trained depth too. Right: exit "
            "1's perplexity over that of the best exit up to the trained depth. A mark per seed.",
            draw=bands,
        ),
    ),
    sentence=looping_sentence,
)
