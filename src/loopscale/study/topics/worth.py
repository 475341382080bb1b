"""Worth: what control of the scale is worth at equal depth and at equal throughput."""

from statistics import fmean

from loopscale.display import Chart
from loopscale.evaluate import FrontierPoint, interpolated
from loopscale.evaluate.display import frontier_chart

from .. import published
from ..best_rates import sentence_by_name
from ..cells import ratio_over_seeds
from ..drawing import LINES
from ..grid import condition_styles
from ..results import ConditionResult, Results, Run
from ..topic import (
    SEED_NOISE,
    TIMES,
    Claim,
    Drawing,
    Topic,
    against,
    at_most,
    below,
    finite,
    per_seed,
    ratio_of_perplexities,
)
from .depth import NOISY, exit_of
from .exits import PLAIN, final_perplexity_ratio

READABLE = 1.5  # times the lowest perplexity; beyond, an exit is unusable and would flatten the others
SAME = 0.01  # perplexities within 1% are called equal
STEADY = 1.25  # these models do the same work up to an exit; beyond this factor, speeds are noise
CONTROLLED = ("per_loop-raw", "per_loop-final_rmsnorm", "per_loop-rmsnorm-penalty")
REMEDIES = (*CONTROLLED, "per_loop-rmsnorm-normed")  # those at every exit; what each costs is told by name

Curve = list[tuple[float, float]]


def frontier_points(results: Results) -> list[FrontierPoint]:
    """Return every exit up to the trained depth as a point: means over seeds, where all of them were measured."""
    return [
        point
        for name, condition in results.conditions.items()
        for k in range(results.num_loops)
        if (point := _point(name, condition, k))
    ]


def frontier(results: Results) -> Chart | None:
    """Draw perplexity against operations and throughput; exits far above the best are left out."""
    every = frontier_points(results)
    if not every:
        return None
    lowest = min(point.perplexity for point in every)
    shown = [point for point in every if point.perplexity <= READABLE * lowest]
    return frontier_chart(shown, condition_styles(results))


@sentence_by_name
def worth_sentence(results: Results) -> str | None:
    """Say what every remedy costs at the last exit, or gains, and where that is not decided."""
    found = {name: cost for name in REMEDIES if (cost := remedy_cost(results, name)) is not None}
    if not found:
        return None
    words = ", ".join(f"{ratio} in {name}" for name, ratio in found.items())
    return f"The remedies: last-exit perplexity relative to {PLAIN} is {words}{_only(results)}."


def remedy_cost(results: Results, name: str) -> str | None:
    """Return a remedy's last-exit perplexity over the blind model's in words, None without runs of both."""
    measured = per_seed(final_perplexity_ratio, name, PLAIN)(results)
    return ratio_over_seeds(list(measured.values.values()))


def _only(results: Results) -> str:
    return "" if len(results.seeds) > 1 else f"; one seed decides only what is more than a factor {SEED_NOISE:g} from 1"


def dearest_remedy(*runs: Run) -> float:
    """Return the largest ratio of last-exit perplexities of the other runs to the last one."""
    *remedies, plain = runs
    return max(final_perplexity_ratio(run, plain) for run in remedies)


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


_plain = published.PERPLEXITY_129M[PLAIN][-1]
_dearest = max(published.PERPLEXITY_129M[name][-1] for name in REMEDIES if name in published.PERPLEXITY_129M)
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
        trained_apart=True,
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
        trained_apart=True,
    ),
    Claim(
        id="remedies-cost-nothing",
        statement="No remedy costs anything: the last exit of each is at most 1% above that of plain RMSNorm readouts.",
        measure=per_seed(dearest_remedy, *REMEDIES, PLAIN),
        threshold=at_most(1 + SAME),
        published=against(_dearest, _plain, where="129M, its dearest remedy; the inter-loop norm is ours"),
        remark=f"The largest ratio at the last exit of {', '.join(REMEDIES)} to {PLAIN}.",
        trained_apart=True,
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
