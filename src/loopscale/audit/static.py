"""Verdict before training, from a configuration alone: worked out from the effects that its parts and losses state."""

from collections.abc import Mapping, Sequence

from loopscale.audit.coordinates import Coordinate, mean, scale
from loopscale.audit.verdict import Verdict, judge
from loopscale.mechanism import Effect, Mechanism, choose, kind_of
from loopscale.model import CARRIES, CODA_INPUTS, INJECTIONS, READOUTS, RESIDUALS, LoopedConfig, config_losses
from loopscale.objective import Losses, NormPenalty, Weighted


def static_verdict(config: LoopedConfig, penalty: bool = False) -> Mapping[str, Verdict]:
    """Return the verdict on `scale` and `mean` that the audit of a trained model of this configuration comes to.

    `penalty` says that training will penalise the norm whatever the coefficient in `config`, as `scale_target` does.

    It knows what a configuration decides: which coordinates a readout hides, a residual, an injection or a recurrence
    removes, a gate reads, and what a penalty sees. What weights decide stays with the measurement (`undecided`): how
    much of the mean survives a division by the scale in an inter-loop norm, say. How far `damped` shrinks and the
    directions of a trained head are not asked here.
    """
    losses = config_losses(config)
    if penalty and not config.norm_penalty_coef:
        losses = Losses.of(losses.num_loops, losses.exits.supervision, [NormPenalty(Weighted()), *losses.penalties])
    return {coordinate.name: _verdict(coordinate, config, losses) for coordinate in (scale, mean)}


def static_warning(config: LoopedConfig) -> str | None:
    """Return what to tell someone about to train this configuration, None where there is no blind spot."""
    blind = {name: v for name, v in static_verdict(config).items() if v.verdict == "blind_spot"}
    if not blind:
        return None
    carry = kind_of(config.recurrence)
    carries = "" if config.trained_loops == 1 else f", and recurrence '{carry}' carries it from loop to loop"
    lines = [
        f"blind spot: no supervised loss sees the {name} of the state{carries}, so no exit controls it. To mend it: "
        f"{verdict.remedy}."
        for name, verdict in blind.items()
    ]
    return "\n".join(lines)


def _verdict(coordinate: Coordinate, config: LoopedConfig, losses: Losses) -> Verdict:
    carry, residual, injection = (
        choose(slot, value, registry)[0]
        for slot, value, registry in (
            ("recurrence", config.recurrence, CARRIES),
            ("residual", config.residual_part, RESIDUALS),
            ("injection", config.injection, INJECTIONS),
        )
    )
    K, carried = losses.num_loops, _effect(carry, coordinate)
    at_exit = [_at_exit(config, coordinate, k + 1 == K) for k in range(K)]
    found = {
        loss.name: [loss.effect(coordinate.name, at_exit[k], carried) if loss.looks(k) else None for k in range(K)]
        for loss in losses
    }
    seen = {name: [k + 1 for k, effect in enumerate(each) if effect == Effect.SEES] for name, each in found.items()}
    step = [_effect(part, coordinate) for part in (injection, residual)]
    if Effect.REMOVES in step and kind_of(config.relaxation) != "full":
        step = [Effect.WEIGHTS]  # a part of what a loop received stays beside what its layers made of it
    removed_by = "carry" if carried == Effect.REMOVES else "step" if Effect.REMOVES in step else None
    open_ = Effect.WEIGHTS in [*_of(found), *([] if removed_by else [carried, *step])]
    if open_ and not any(seen.values()):
        return Verdict("undecided", {}, removed_by)
    return judge(seen, removed_by, coordinate.remedy_for(True, K))


def _at_exit(config: LoopedConfig, coordinate: Coordinate, last: bool) -> Effect:
    """Return what the readout, and the layers before it that belong to it, do to a coordinate at an exit."""
    read = choose("readout", config.readout, READOUTS)[0].effects_at(last).get(coordinate.name, Effect.WEIGHTS)
    if not config.num_coda_layers:
        return read
    entering = choose("coda_input", config.coda_input, CODA_INPUTS)[0].entering(coordinate.name, read)
    if entering == Effect.HIDES:
        return entering
    kept = _effect(choose("residual", config.residual_part, RESIDUALS)[0], coordinate)
    # a norm behind the layers still sees what the state adds to them by: how much is theirs to decide
    return read if (read, entering, kept) == (Effect.SEES, Effect.KEEPS, Effect.KEEPS) else Effect.WEIGHTS


def _effect(part: type[Mechanism], coordinate: Coordinate) -> Effect:
    return part.effects.get(coordinate.name, Effect.WEIGHTS)


def _of(found: Mapping[str, Sequence[Effect | None]]) -> list[Effect | None]:
    return [effect for each in found.values() for effect in each]
