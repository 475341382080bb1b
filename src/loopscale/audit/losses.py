"""What the training loss sees of the states: exits, gate and penalty. Read from our config, told for other models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args, runtime_checkable

from torch import Tensor

from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.config import Supervision
from loopscale.objective import ExitGate, PerLoop, Terminal, build_supervision
from loopscale.objective import Supervision as SupervisionRule
from loopscale.stepping import Gated, Looped

CROSS_ENTROPY, EXIT_GATE, PENALTY = "cross-entropy", "exit gate", "norm penalty"
NAMES: Mapping[type[SupervisionRule], str] = {Terminal: "terminal", PerLoop: "per_loop", ExitGate: "exit_gate"}
Gate = Callable[[Tensor, int], Tensor]


@runtime_checkable
class Described(Protocol):
    """A looped model that says how it was trained, as the adapters of other people's models do."""

    trained_loops: int
    supervision: SupervisionRule | str


@dataclass(frozen=True)
class Losses:
    """Which losses look at the state of which loop (`num_loops` is the depth that was trained)."""

    num_loops: int
    supervision: str
    supervised: tuple[bool, ...]
    penalty: bool
    gated: bool = False

    def looks(self, loss: str, k: int) -> bool:
        """Return whether that loss looks at the state of loop k; the last gate decides nothing, so it does not."""
        if loss == CROSS_ENTROPY:
            return self.supervised[k]
        return self.penalty if loss == PENALTY else self.gated and k < self.num_loops - 1


def losses_of(config: LoopedConfig) -> Losses:
    """Return what the loss of a configuration sees."""
    assert config.trained_loops is not None  # the config fills it
    return describe_losses(config.trained_loops, config.supervision, config.loop_weights, config.norm_penalty_coef)


def describe_losses(
    num_loops: int,
    supervision: str = "per_loop",
    loop_weights: Sequence[float] | None = None,
    norm_penalty_coef: float = 0.0,
) -> Losses:
    """Return what a loss sees, told in the words of a `LoopedConfig`.

    Raises `InputError` for an unknown supervision, weights of another number than loops or a negative penalty.
    """
    if supervision not in get_args(Supervision):
        raise unknown("supervision", supervision, get_args(Supervision))
    if loop_weights is not None and len(loop_weights) != num_loops:
        raise InputError(f"loop_weights has {len(loop_weights)} entries for {num_loops} loops: give one per loop.")
    return _losses(num_loops, build_supervision(supervision, loop_weights), norm_penalty_coef)


def losses_for(
    model: Looped,
    supervision: str | None,
    loop_weights: Sequence[float] | None,
    norm_penalty_coef: float | None,
) -> Losses:
    """Return what the loss of a model sees: an argument that is given wins over what the model says of itself."""
    if isinstance(model, LoopedForCausalLM):
        own, num_loops = model.config, model.config.trained_loops
        assert num_loops is not None  # the config fills it
        supervision = supervision or own.supervision
        loop_weights = own.loop_weights if loop_weights is None else loop_weights
        norm_penalty_coef = own.norm_penalty_coef if norm_penalty_coef is None else norm_penalty_coef
    elif isinstance(model, Described):
        num_loops = model.trained_loops
        if supervision is None and isinstance(model.supervision, SupervisionRule):
            return _losses(num_loops, model.supervision, norm_penalty_coef or 0.0)
        supervision = supervision or str(model.supervision)
    else:
        num_loops = model.num_loops
    return describe_losses(num_loops, supervision or "per_loop", loop_weights, norm_penalty_coef or 0.0)


def gate_of(model: Looped, losses: Losses) -> Gate | None:
    """Return the gate that the loss trains, or None where it trains none.

    Raises `InputError` where the supervision names a gate that the model does not have.
    """
    if not losses.gated:
        return None
    if not isinstance(model, Gated):
        raise InputError(
            f"supervision is 'exit_gate' but {type(model).__name__} has no `exit_probability(z, k)`: write it."
        )
    return model.exit_probability


def _losses(num_loops: int, rule: SupervisionRule, norm_penalty_coef: float) -> Losses:
    if not norm_penalty_coef >= 0:
        raise InputError(f"norm_penalty_coef is {norm_penalty_coef}: give 0 (no penalty) or more.")
    supervised = tuple(rule.supervises(k, num_loops) for k in range(num_loops))
    return Losses(num_loops, NAMES[type(rule)], supervised, norm_penalty_coef > 0, isinstance(rule, ExitGate))
