"""The verdict before training, from a configuration alone."""

from collections.abc import Mapping

from loopscale.audit.coordinates import Coordinate, mean, scale
from loopscale.audit.losses import CROSS_ENTROPY, EXIT_GATE, PENALTY, Losses, losses_of
from loopscale.audit.verdict import Verdict, judge
from loopscale.model import READOUTS, RECURRENCES, LoopedConfig


def static_verdict(config: LoopedConfig) -> Mapping[str, Verdict]:
    """Return the verdict on `scale` and `mean` that the audit of a trained model of this configuration comes to.

    It knows what a configuration decides: which coordinates a readout hides, a recurrence removes, a gate reads, and
    that a norm penalty sees them all. What weights decide stays with the measurement: how far `damped` shrinks, how
    much of the mean survives a division by the scale in an inter-loop norm, the directions of a trained head.
    """
    return {coordinate.name: _verdict(coordinate, config) for coordinate in (scale, mean)}


def static_warning(config: LoopedConfig) -> str | None:
    """Return what to tell someone about to train this configuration, None where there is no blind spot."""
    blind = {name: v for name, v in static_verdict(config).items() if v.verdict == "blind_spot"}
    if not blind:
        return None
    lines = [
        f"blind spot: no supervised loss sees the {name} of the state, and recurrence '{config.recurrence}' carries it "
        f"from loop to loop, so nothing controls it. To mend it: {verdict.remedy}."
        for name, verdict in blind.items()
    ]
    return "\n".join(lines)


def _verdict(coordinate: Coordinate, config: LoopedConfig) -> Verdict:
    losses = losses_of(config)
    readout = READOUTS[config.readout](config)
    removed = coordinate.name in RECURRENCES[config.recurrence](config).removes
    K = losses.num_loops
    sees = {
        CROSS_ENTROPY: [coordinate.name not in readout.hides(k + 1 == K) for k in range(K)],
        EXIT_GATE: [not removed] * K,  # it reads the carried state
        PENALTY: [True] * K,
    }
    return judge(
        coordinate, {loss: _loops(loss, seen, losses) for loss, seen in sees.items()}, "carry" if removed else None
    )


def _loops(loss: str, seen: list[bool], losses: Losses) -> list[int]:
    return [k + 1 for k, sees in enumerate(seen) if sees and losses.looks(loss, k)]
