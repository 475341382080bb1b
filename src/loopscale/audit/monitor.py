"""The audit while a model trains: scale, visibility and angular step of every loop, a warning, a stop, a controller."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, distributed
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.audit.coordinates import Coordinate, mean, scale
from loopscale.audit.derivatives import exit_gradient, mean_alignment
from loopscale.audit.static import static_verdict
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM, LoopedOutput
from loopscale.state import angular_step

logger = logging.getLogger(__name__)
WATCHED: tuple[Coordinate, ...] = (scale, mean)


@final
@dataclass
class ScaleController:
    """Holds the scale of the last loop at `target` by the norm penalty's coefficient.

    A proportional-integral rule in logarithms. At every reading a scale that is too large by a factor f multiplies the
    coefficient by f to the power `rate`, and one that has grown by a factor f since the last by f to the power `gain`.
    One reading changes it by a factor of `step` at most: early in training the scale swings by itself, and falls later
    under any penalty. The first reading, of weights that have not been trained yet, changes nothing.
    """

    target: float
    initial: float = 0.01
    gain: float = 0.5
    rate: float = 1.0
    step: float = 2.0
    smallest: float = 1e-6
    largest: float = 10.0
    _coefficient: float | None = None
    _error: float = 0.0

    def start(self) -> float:
        """Forget earlier readings and return the coefficient to begin with."""
        self._coefficient, self._error = None, 0.0
        return self.initial

    def update(self, measured: float) -> float:
        """Return the coefficient to train with from now on; a reading that is no length changes nothing."""
        if not 0 < measured < math.inf:
            return self.initial if self._coefficient is None else self._coefficient
        error = math.log(measured / self.target)
        if self._coefficient is None:
            self._coefficient = self.initial
        else:
            change = self.gain * (error - self._error) + self.rate * error
            limit = math.log(self.step)
            proposed = self._coefficient * math.exp(min(max(change, -limit), limit))
            self._coefficient = min(max(proposed, self.smallest), self.largest)
        self._error = error
        return self._coefficient


@final
class ScaleMonitor(TrainerCallback):
    """A callback of transformers' Trainer for a `LoopedForCausalLM`; costs a sync and a few readouts every N steps.

    Every `every` optimizer steps it reads the states of the training forward itself (`rows` windows of it, dropout
    included) and logs, per loop, `scale`, `visibility` (share of the cross-entropy's gradient along the state) and
    `angular_step`. A coordinate that the configuration leaves blind and that has grown by `warn_factor` is warned of
    in words, again at every further factor. `stop_scale` ends the run once the last loop's scale exceeds it.
    `scale_target` hands `model.config.norm_penalty_coef` to a `ScaleController`.

    `log` takes the figures, for instance `trainer.log`, so that trackers see them; by default they are appended to
    the trainer's log history.
    """

    def __init__(
        self,
        every: int = 50,
        *,
        rows: int = 1,
        warn_factor: float = 3.0,
        stop_scale: float | None = None,
        scale_target: float | ScaleController | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        if every < 1 or rows < 1 or warn_factor <= 1:
            raise InputError(
                f"every {every} and rows {rows} must be at least 1, warn_factor {warn_factor} more than 1."
            )
        self.every, self.rows, self.warn_factor, self.stop_scale, self.log = every, rows, warn_factor, stop_scale, log
        self.controller = ScaleController(scale_target) if isinstance(scale_target, int | float) else scale_target
        if self.controller is not None and not 0 < self.controller.target < math.inf:
            raise InputError(f"scale_target is {self.controller.target}: give a scale (RMS) above 0.")
        self._handles: list[RemovableHandle] = []
        self._due = False
        self._captured: tuple[Tensor, tuple[Tensor, ...], Tensor] | None = None  # norms, states, labels
        self._reference: dict[str, float] = {}
        self._blind: tuple[Coordinate, ...] = ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Listen to the model's forward passes."""
        if not isinstance(model, LoopedForCausalLM):
            raise InputError(f"ScaleMonitor watches a LoopedForCausalLM, not a {type(model).__name__}.")
        if self.controller is not None:
            model.config.norm_penalty_coef = self._take_up(state, model.num_loops)
        verdicts = static_verdict(model.config)
        self._blind = tuple(c for c in WATCHED if verdicts[c.name].verdict == "blind_spot")
        self._handles = [
            model.register_forward_pre_hook(self._ask_for_states, with_kwargs=True),
            model.register_forward_hook(self._keep_states, with_kwargs=True),
        ]

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Decide whether this step is read."""
        self._due = (state.global_step + 1) % self.every == 0 or state.global_step == 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Read, log, warn, stop, and steer."""
        if not self._due or self._captured is None:
            return
        norms, states, labels = self._captured
        self._due, self._captured = False, None
        scales = _mean_over_ranks(norms.float()) / math.sqrt(model.config.hidden_size)
        figures = {f"scale/{k}": s for k, s in enumerate(scales.tolist(), 1)}
        last = figures[f"scale/{len(states)}"]
        with torch.no_grad():
            figures |= _readings(model, states, labels)
        if self.controller is not None:
            model.config.norm_penalty_coef = self.controller.update(last)
            figures["norm_penalty_coef"] = model.config.norm_penalty_coef
        self._report(state, figures)
        self._warn(state.global_step, states, model)
        if self.stop_scale is not None and last > self.stop_scale:
            logger.warning(
                "step %d: the scale after loop %d is %.3g, above the limit of %.3g: stopping.",
                *(state.global_step, len(states), last, self.stop_scale),
            )
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _take_up(self, state: TrainerState, num_loops: int) -> float:
        """Return the coefficient to begin with: a resumed run steers on from the readings in its log."""
        assert self.controller is not None  # asked only then
        coefficient = self.controller.start()
        for line in state.log_history:
            if "norm_penalty_coef" in line:
                coefficient = self.controller.update(line[f"scale/{num_loops}"])
        return coefficient

    def _ask_for_states(self, model: LoopedForCausalLM, args: Any, kwargs: dict[str, Any]) -> Any:
        return (args, {**kwargs, "output_states": True}) if self._due and model.training else None

    def _keep_states(self, model: LoopedForCausalLM, args: Any, kwargs: dict[str, Any], output: LoopedOutput) -> None:
        if not self._due or not model.training or output.states is None or output.loop_norms is None:
            return
        states = tuple(z[: self.rows].detach() for z in output.states)
        self._captured = output.loop_norms.mean(0), states, kwargs["shift_labels"][: self.rows]

    def _report(self, state: TrainerState, figures: dict[str, float]) -> None:
        if self.log is not None:
            self.log(figures)
        else:
            state.log_history.append({**figures, "step": state.global_step})

    def _warn(self, step: int, states: tuple[Tensor, ...], model: LoopedForCausalLM) -> None:
        """Say so when a coordinate that no loss sees has grown; from there on, the next factor counts."""
        for coordinate in self._blind:
            value = float(coordinate.value(states[-1]).abs().mean())
            before = self._reference.setdefault(coordinate.name, value)
            if value > self.warn_factor * before:
                logger.warning(
                    "step %d: the %s of the state after loop %d is %.3g, %.1f times what it was, and no loss sees it. "
                    "To mend it: %s.",
                    *(step, coordinate.name, len(states), value, value / before, coordinate.remedy),
                )
                self._reference[coordinate.name] = value


def _readings(model: LoopedForCausalLM, states: tuple[Tensor, ...], labels: Tensor) -> dict[str, float]:
    """Return visibility of scale at every loop and the angular step to it, with one transfer."""
    seen = [mean_alignment(*exit_gradient(model, z, k, labels), z, labels) for k, z in enumerate(states)]
    turns = [angular_step(a, b).mean() for a, b in pairwise(states)]
    names = [f"visibility/{k + 1}" for k in range(len(seen))] + [f"angular_step/{k + 1}" for k in range(len(turns))]
    return dict(zip(names, torch.stack(seen + turns).tolist(), strict=True))


def _mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean over processes, so that every one of them steers alike."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values
