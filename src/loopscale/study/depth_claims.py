"""Claims on depth: are models whose scale is controlled better at matched depth, and at equal throughput?"""

from loopscale.evaluate import interpolated

from . import published
from .claim import TIMES, Claim, against, below, per_seed, ratio_of_perplexities
from .extras import number_at
from .results import Run

CONTROLLED = ("per_loop-raw", "per_loop-final_rmsnorm", "per_loop-rmsnorm-penalty")
PLAIN = "per_loop-rmsnorm"
STEADY = 1.25  # these models do the same work up to an exit; beyond this factor, speeds are noise

Curve = list[tuple[float, float]]


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
    speeds = [number_at(run, "depth", "trained", "exits", k, "tokens_per_second") for k in range(len(run.norm))]
    timed = [(1 / speed, nats) for speed, nats in zip(speeds, run.cross_entropy, strict=True) if speed]
    return timed if len(timed) == len(speeds) else []


def _unsteady(*curves: Curve) -> bool:
    """Whether an exit took one of these models more than `STEADY` times as long as another."""
    times = ([seconds for seconds, _ in exits] for exits in zip(*curves, strict=True))
    return any(max(seconds) > STEADY * min(seconds) for seconds in times)


def _worst_published() -> str:
    plain = published.PERPLEXITY_129M[PLAIN]
    pairs = [(a, b) for name in CONTROLLED for a, b in zip(published.PERPLEXITY_129M[name], plain, strict=True)]
    theirs, base = max(pairs, key=lambda pair: pair[0] / pair[1])
    return against(theirs, base, where="129M, its worst exit")


_NAMED = f"The largest ratio over exits and over {', '.join(CONTROLLED)}, to {PLAIN}."
_SMALL = "Published at 129M; a small model after a few hundred steps need not show it."

DEPTH_CLAIMS: tuple[Claim, ...] = (
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
        remark=f"{_NAMED} Not tested where speeds of like exits are more than {STEADY:g}{TIMES} apart: all do the same "
        f"work. {_SMALL}",
    ),
)
