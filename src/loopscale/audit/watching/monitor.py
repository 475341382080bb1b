"""The audit while a model trains: scale, visibility and angular step of every loop, a warning, a stop, a controller.

It listens to a training forward under anybody's Trainer, and only while one is due to be read: nothing is left on the
model when a step fails.
"""

import logging
import math
from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.audit.coordinates import Coordinate, mean, scale
from loopscale.audit.measurement.derivatives import exit_gradient, mean_alignment
from loopscale.audit.static import static_verdict
from loopscale.audit.watching.controller import ScaleController
from loopscale.call import Call
from loopscale.errors import InputError
from loopscale.hf import wrapped_model
from loopscale.model import LoopedForCausalLM, LoopedOutput
from loopscale.objective import IGNORED, next_tokens, set_coefficient
from loopscale.state import angular_step
from loopscale.stepping import evaluating

logger = logging.getLogger(__name__)
WATCHED: tuple[Coordinate, ...] = (scale, mean)


class _Captured(NamedTuple):
    """What was kept of a pass: norms of all rows, (K,), and of some rows states, real tokens, inputs, labels if any."""

    norms: Tensor
    states: tuple[Tensor, ...]
    real: Tensor
    inputs: dict[str, Tensor | None]
    labels: Tensor | None


@final
class ScaleMonitor(TrainerCallback):
    """A callback of transformers' Trainer for a `LoopedForCausalLM`; costs a sync and a few readouts every N steps.

    Every `every` optimizer steps it reads the states of a training forward itself (`rows` windows of it, dropout
    included; the first forward of the step, where gradients are accumulated) and logs, per loop, `scale`, `visibility`
    (share of the cross-entropy's gradient along the state, over the tokens whose gradient has a direction that can be
    read; none without any), `visibility_left_out` (labels of other tokens) and `angular_step`. Labels are those of the
    call, or where it has none the next tokens of its own text.

    A coordinate that the configuration leaves blind and that has grown by `warn_factor` is warned of in words, again at
    every further factor. `stop_scale` ends the run once the last loop's scale exceeds it.
    `scale_target` hands the coefficient of one penalty of `model.config`, the norm penalty unless told otherwise, to a
    `ScaleController`.

    `log` takes the figures, for instance `trainer.log`, so that trackers see them; by default they are appended to
    the trainer's log history.

    The model may be wrapped by PEFT, compiled, or under DistributedDataParallel. Raises `InputError` for other models
    and under DataParallel.
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
        self._captured: _Captured | None = None
        self._reference: dict[str, float] = {}
        self._blind: tuple[Coordinate, ...] = ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Look at the model, and take up the controller."""
        looped = _looped(model, args)
        if self.controller is not None:
            set_coefficient(looped.config, self.controller.penalty, self._take_up(state, looped.num_loops))
        verdicts = static_verdict(looped.config)
        self._blind = tuple(c for c in WATCHED if verdicts[c.name].verdict == "blind_spot")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Listen to the next forward pass if this step is to be read."""
        self._stop_listening()
        self._due, self._captured = (state.global_step + 1) % self.every == 0 or state.global_step == 0, None
        if self._due:
            # always called, so that a forward that fails leaves nothing on the model
            self._handles = [
                model.register_forward_pre_hook(self._ask_for_states, with_kwargs=True),
                model.register_forward_hook(self._keep_states, with_kwargs=True, always_call=True),
            ]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Read, log, warn, stop, and steer."""
        self._stop_listening()
        if not self._due:
            return
        if self._captured is None:
            logger.warning("step %d: no forward of the model in training mode: nothing to read.", state.global_step)
            return
        captured, states = self._captured, self._captured.states
        self._due, self._captured = False, None
        looped = _looped(model, args)
        scales = _mean_over_ranks(captured.norms.float()) / math.sqrt(looped.config.hidden_size)
        figures = {f"scale/{k}": s for k, s in enumerate(scales.tolist(), 1)}
        last = figures[f"scale/{len(states)}"]
        with torch.no_grad():
            figures |= _readings(looped, captured)
        if self.controller is not None:
            figures[self.controller.figure] = self.controller.update(last)
            set_coefficient(looped.config, self.controller.penalty, figures[self.controller.figure])
        self._report(state, control, figures)
        self._warn(state.global_step, captured)
        if self.stop_scale is not None and not last <= self.stop_scale:  # NaN is no scale within the limit
            logger.warning(
                "step %d: the scale after loop %d is %.3g, above the limit of %.3g: stopping.",
                *(state.global_step, len(states), last, self.stop_scale),
            )
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop listening."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _take_up(self, state: TrainerState, num_loops: int) -> float:
        """Return the coefficient to begin with: a resumed run steers on from the readings in its log."""
        assert self.controller is not None  # asked only then
        coefficient = self.controller.start()
        for line in state.log_history:
            if self.controller.figure in line:
                coefficient = self.controller.update(line[f"scale/{num_loops}"])
        return coefficient

    def _ask_for_states(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if not model.training or self._captured is not None:
            return None
        return args, {**kwargs, "output_states": True, "return_dict": True}

    def _keep_states(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: LoopedOutput | None) -> Any:
        """Keep what the pass made."""
        if not model.training or self._captured is not None:
            return None
        if not torch.compiler.is_compiling():
            self._stop_listening()
        if output is None or output.states is None or output.loop_norms is None:
            return None  # the pass failed, and says so itself
        states = tuple(z[: self.rows].detach() for z in output.states)
        called = dict(signature(type(model).forward).bind_partial(model, *args, **kwargs).arguments)
        called |= called.pop("kwargs", {})
        real, labels = _real(called, states[0]), _labels(called, self.rows)
        given = {name: called.get(name) for name in ("input_ids", "attention_mask", "position_ids", "inputs_embeds")}
        inputs = {name: None if x is None else x[: self.rows] for name, x in given.items()}
        self._captured = _Captured(output.loop_norms.mean(0), states, real, inputs, labels)
        return None

    def _report(self, state: TrainerState, control: TrainerControl, figures: dict[str, float]) -> None:
        if self.log is not None:
            due = control.should_log
            self.log(figures)
            control.should_log = due  # a Trainer's log takes the line at the end of the step for made
        else:
            state.log_history.append({**figures, "step": state.global_step})

    def _warn(self, step: int, captured: _Captured) -> None:
        """Say so when a coordinate that no loss sees has grown; from there on, the next factor counts."""
        for coordinate in self._blind:
            value = float(_mean(coordinate.value(captured.states[-1]).abs(), captured.real))
            before = self._reference.setdefault(coordinate.name, value)
            remedy = coordinate.remedy_for(True, len(captured.states))
            if value > self.warn_factor * before:
                logger.warning(
                    "step %d: the %s of the state after loop %d is %.3g, %.1f times what it was, and no loss sees it. "
                    "To mend it: %s.",
                    *(step, coordinate.name, len(captured.states), value, value / before, remedy),
                )
                self._reference[coordinate.name] = value


def _looped(model: Any, args: TrainingArguments) -> LoopedForCausalLM:
    """Return the looped model that a Trainer trains. Raises `InputError` for others, and where it runs in replicas."""
    if isinstance(model, nn.DataParallel) or args.n_gpu > 1:
        raise InputError(
            "ScaleMonitor cannot read the replicas of DataParallel: start one process per GPU (torchrun), or show this "
            "one a single GPU (CUDA_VISIBLE_DEVICES)."
        )
    looped = wrapped_model(model)
    if not isinstance(looped, LoopedForCausalLM):
        raise InputError(f"ScaleMonitor watches a LoopedForCausalLM, not a {type(looped).__name__}.")
    return looped


def _real(called: dict[str, Any], z: Tensor) -> Tensor:
    """Return which tokens of these rows the call's mask calls real, 1 or 0."""
    mask = called.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return torch.ones(z.shape[:2], device=z.device)
    return mask[: len(z), -z.shape[1] :].to(torch.float32)


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return (values * real).sum() / real.sum().clamp_min(1)


def _labels(called: dict[str, Any], rows: int) -> Tensor | None:
    """Return the next tokens of some rows as the call has them, or else its own text; None for a call without either.

    A padded token is no label.
    """
    if called.get("shift_labels") is not None:
        return called["shift_labels"][:rows]
    labels, ids, mask = (called.get(name) for name in ("labels", "input_ids", "attention_mask"))
    if labels is None and ids is not None:
        labels = ids.masked_fill(mask == 0, IGNORED) if isinstance(mask, Tensor) and mask.ndim == 2 else ids
    return None if labels is None else next_tokens(labels[:rows])


def _call(model: LoopedForCausalLM, inputs: dict[str, Tensor | None]) -> Call | LoopedForCausalLM:
    """Return the call whose states were kept, for a readout that looks at its tokens."""
    if not model.config.num_coda_layers:
        return model
    ids, mask, positions, embeds = inputs.values()
    return Call(model, ids, model.model.context(ids, mask, positions, inputs_embeds=embeds))


def _readings(model: LoopedForCausalLM, captured: _Captured) -> dict[str, float]:
    """Return visibility of scale and the tokens it leaves out at every loop, and the angular steps: one transfer."""
    _, states, real, inputs, labels = captured
    figures: dict[str, Tensor] = {}
    # what the readout runs draws no random numbers that training would draw, and adds no graphs to a compiled model
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        call = _call(model, inputs)
        for k, z in enumerate(states if labels is not None else ()):
            assert labels is not None
            share, read = mean_alignment(*exit_gradient(call, z, k, labels), z, labels)
            figures |= {f"visibility/{k + 1}": share, f"visibility_left_out/{k + 1}": (labels != IGNORED).sum() - read}
    figures |= {f"angular_step/{k}": _mean(angular_step(a, b), real) for k, (a, b) in enumerate(pairwise(states), 1)}
    if not figures:
        return {}
    values = torch.stack([value.float() for value in figures.values()]).tolist()
    return {name: value for name, value in zip(figures, values, strict=True) if not math.isnan(value)}


def _mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean over processes, so that every one of them steers alike."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values
