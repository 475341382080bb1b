"""Worth: what control of the scale is worth at equal depth and at equal throughput."""

from statistics import fmean
from typing import TYPE_CHECKING

from loopscale.display import number, styled
from loopscale.evaluate import FrontierPoint, interpolated
from loopscale.evaluate.display import frontier_figure

from .. import published
from ..cells import mean_of
from ..drawing import LINES
from ..grid import condition_styles
from ..results import ConditionResult, Results, Run
from ..topic import TIMES, Claim, Drawing, Topic, against, below, finite, per_seed, ratio_of_perplexities
from .depth import NOISY, exit_of
from .exits import PLAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READABLE = 1.5  # times the lowest perplexity; beyond, an exit is unusable and would flatten the others
SAME = 0.01  # perplexities within 1% are called equal
STEADY = 1.25  # these models do the same work up to an exit; beyond this factor, speeds are noise
CONTROLLED = ("per_loop-raw", "per_loop-final_rmsnorm", "per_loop-rmsnorm-penalty")

Curve = list[tuple[float, float]]


def frontier_points(results: Results) -> list[FrontierPoint]:
    """Return every exit up to the trained depth as a point: means over seeds, where all of them were measured."""
    return [
        point
        for name, condition in results.conditions.items()
        for k in range(results.num_loops)
        if (point := _point(name, condition, k))
    ]


@styled
def frontier(results: Results) -> "Figure | None":
    """Draw perplexity against operations and throughput; exits far above the best are left out."""
    every = frontier_points(results)
    if not every:
        return None
    lowest = min(point.perplexity for point in every)
    shown = [point for point in every if point.perplexity <= READABLE * lowest]
    return frontier_figure(shown, {name: style.line for name, style in condition_styles(results).items()})


def worth_sentence(results: Results) -> str | None:
    """Say what control of the scale is worth at the last exit."""
    plain_nats = mean_of(results.runs(PLAIN), last_nats)
    ratios = {
        name: ratio_of_perplexities(nats - plain_nats)
        for name in CONTROLLED
        if plain_nats is not None and (nats := mean_of(results.runs(name), last_nats)) is not None
    }
    if not ratios:
        return None
    words = ", ".join(f"{number(ratio)} in {name}" for name, ratio in ratios.items())
    better, worse = (sum(map(test, ratios.values())) for test in (lambda r: r < 1 - SAME, lambda r: r > 1 + SAME))
    verdict = f"{better} better, {worse} worse, {len(ratios) - better - worse} within 1%"
    return f"The worth: last-exit perplexity relative to {PLAIN} is {words}: {verdict}."


def last_nats(run: Run) -> float:
    """Return the cross-entropy of the last exit."""
    return run.cross_entropy[-1]


def worst_at_equal_depth(*runs: Run) -> float:
    """Return the largest ratio of perplexities, over all exits, of the other runs to the last one."""
    *controlled, plain = (run.cross_entropy for run in runs)
    return ratio_of_perplexities(max(a - b for exits in controlled for a, b in zip(exits, plain, strict=True)))


def worst_at_equal_throughput(*runs: Run) -> float | None:
    """Return the largest ratio of perplexities of the other runs to the last one, read at the same tokens per second.

    The last run's loss is interpolated, linearly in log time, at the time per token of every exit of the others that
    lies within its own. None where the speeds of like exits are too far apart: all of them run the same operations, so
    that such a gap is the machine's.
    """
    *controlled, plain = map(_loss_over_time, runs)
    if not plain or not all(controlled) or _unsteady(plain, *controlled):
        return None
    found = [(nats, interpolated(plain, at=seconds)) for curve in controlled for seconds, nats in curve]
    differences = [ours - theirs for ours, theirs in found if theirs is not None]
    return ratio_of_perplexities(max(differences)) if differences else None


def _loss_over_time(run: Run) -> Curve:
    """Return seconds per token and nats of every exit; empty where one of them is not measured."""
    exits = [exit_of(run, "trained", k) for k in range(len(run.norm))]
    speeds = [finite(found.tokens_per_second) if found else None for found in exits]
    timed = [(1 / speed, nats) for speed, nats in zip(speeds, run.cross_entropy, strict=True) if speed]
    return timed if len(timed) == len(exits) else []


def _unsteady(*curves: Curve) -> bool:
    """Whether an exit took one of these models more than `STEADY` times as long as another."""
    times = ([seconds for seconds, _ in exits] for exits in zip(*curves, strict=True))
    return any(max(seconds) > STEADY * min(seconds) for seconds in times)


def _point(name: str, condition: ConditionResult, k: int) -> FrontierPoint | None:
    found = [exit_of(run, "trained", k) for run in condition.runs]
    rows = [[finite(x) for x in (e.perplexity, e.flops, e.tokens_per_second)] for e in found if e]
    known = [[x for x in row if x] for row in rows]
    if not known or len(known) < len(found) or min(map(len, known)) < 3:
        return None
    perplexity, flops, speed = map(fmean, zip(*known, strict=True))
    return FrontierPoint(name, k + 1, perplexity, None, flops, 1 / speed)


def _worst_published() -> str:
    plain = published.PERPLEXITY_129M[PLAIN]
    pairs = [(a, b) for name in CONTROLLED for a, b in zip(published.PERPLEXITY_129M[name], plain, strict=True)]
    theirs, base = max(pairs, key=lambda pair: pair[0] / pair[1])
    return against(theirs, base, where="129M, its worst exit")


_NAMED = f"The largest ratio over exits and over {', '.join(CONTROLLED)}, to {PLAIN}."
_SMALL = "Published at 129M; a small model after a few hundred steps need not show it."

CLAIMS = (
    Claim(
        id="better-at-equal-depth",
        statement="At every exit, each model whose scale a loss controls has a lower perplexity than plain RMSNorm "
        "readouts.",
        measure=per_seed(worst_at_equal_depth, *CONTROLLED, PLAIN),
        threshold=below(1.0),
        published=_worst_published(),
        remark=f"{_NAMED} {_SMALL}",
    ),
    Claim(
        id="better-at-equal-throughput",
        statement="At equal tokens per second too, each model whose scale a loss controls has a lower perplexity.",
        measure=per_seed(worst_at_equal_throughput, *CONTROLLED, PLAIN),
        threshold=below(1.0),
        published=f"{_worst_published()}, with one throughput for all",
        remark=(
            f"{_NAMED} Not tested where speeds of like exits are more than {STEADY:g}{TIMES} apart: all do the same "
            f"work. {_SMALL}"
        ),
    ),
)

TOPIC: Topic[None] = Topic(
    name="worth",
    heading="Depth and halting",
    place=41,
    claims=CLAIMS,
    figures=(
        Drawing(
            name="frontier",
            title="What perplexity costs",
            caption="Every exit, numbered, against counted operations and measured throughput; cost grows to the "
            f"right. Hollow: another exit is as good at no higher cost. Exits above {READABLE:g} times the lowest "
            f"perplexity are left out. {NOISY} {LINES}",
            draw=frontier,
        ),
    ),
    sentence=worth_sentence,
)
