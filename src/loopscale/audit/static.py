"""The verdict before training, from a configuration alone."""

from collections.abc import Mapping
from dataclasses import replace

from loopscale.audit.coordinates import Coordinate, mean, scale
from loopscale.audit.losses import CROSS_ENTROPY, EXIT_GATE, PENALTY, Losses, losses_of
from loopscale.audit.verdict import Verdict, judge
from loopscale.mechanism import Effect, choose
from loopscale.model import CARRIES, READOUTS, LoopedConfig


def static_verdict(config: LoopedConfig, penalty: bool = False) -> Mapping[str, Verdict]:
    """Return the verdict on `scale` and `mean` that the audit of a trained model of this configuration comes to.

    `penalty` says that training will penalise the norm whatever the coefficient in `config`, as `scale_target` does.

    It knows what a configuration decides: which coordinates a readout hides, a recurrence removes, a gate reads, and
    that a norm penalty sees them all. What weights decide stays with the measurement: how far `damped` shrinks, how
    much of the mean survives a division by the scale in an inter-loop norm, the directions of a trained head.
    """
    losses = losses_of(config)
    losses = replace(losses, penalty=losses.penalty or penalty)
    return {coordinate.name: _verdict(coordinate, config, losses) for coordinate in (scale, mean)}


def static_warning(config: LoopedConfig) -> str | None:
    """Return what to tell someone about to train this configuration, None where there is no blind spot."""
    blind = {name: v for name, v in static_verdict(config).items() if v.verdict == "blind_spot"}
    if not blind:
        return None
    lines = [
        f"blind spot: no supervised loss sees the {name} of the state, and recurrence '{config.recurrence}' carries it "
        f"from loop to loop, so no exit controls it. To mend it: {verdict.remedy}."
        for name, verdict in blind.items()
    ]
    return "\n".join(lines)


def _verdict(coordinate: Coordinate, config: LoopedConfig, losses: Losses) -> Verdict:
    readout, _ = choose("readout", config.readout, READOUTS)
    carry, _ = choose("recurrence", config.recurrence, CARRIES)
    removed = carry.effects.get(coordinate.name) == Effect.REMOVES
    K = losses.num_loops
    sees = {
        CROSS_ENTROPY: [readout.effects_at(k + 1 == K).get(coordinate.name) != Effect.HIDES for k in range(K)],
        EXIT_GATE: [not removed] * K,  # it reads the carried state
        PENALTY: [True] * K,
    }
    return judge(
        coordinate, {loss: _loops(loss, seen, losses) for loss, seen in sees.items()}, "carry" if removed else None
    )


def _loops(loss: str, seen: list[bool], losses: Losses) -> list[int]:
    return [k + 1 for k, sees in enumerate(seen) if sees and losses.looks(loss, k)]
