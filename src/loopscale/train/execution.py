"""Execution of a prepared training: to its end, to a stop, or to a step that is not finite.

Whatever the way, what callbacks took of the process and of the model is given back.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import Tensor, nn
from transformers import TrainerState

from loopscale.audit import ScaleMonitor
from loopscale.errors import InputError
from loopscale.hf import is_of_a_compiler
from loopscale.state import norm
from loopscale.train.callbacks import Lines, StopOnSignal, Stopwatch
from loopscale.train.checkpoints import STATE_FILE, step_of
from loopscale.train.config import RunConfig
from loopscale.train.trainer import LOST_WEIGHT, Diverged, LoopedTrainer

logger = logging.getLogger(__name__)

BATCH_FILE = "diverged.safetensors"  # the windows of the step that was not finite


def execute(
    trainer: LoopedTrainer,
    checkpoint: Path | None,
    config: RunConfig,
    stop: StopOnSignal,
    watch: Stopwatch,
    quiet: bool,
) -> Diverged | None:
    """Train to the end or to a stop; return where it diverged, if it did. What callbacks took is given back."""
    total = _total_steps(trainer, config)
    if checkpoint is not None and step_of(checkpoint) >= total:  # killed between its last checkpoint and its end
        _take_up_finished(trainer, checkpoint, total, watch)
        return None
    lines = None
    if not quiet:
        tokens = config.train.batch_size * config.data.sequence_length * trainer.args.world_size
        lines = Lines(tokens)
        lines.introduce(trainer, config, total)
        trainer.add_callback(lines)
    try:
        with _compiler_errors(config):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            trainer.require_finite()
        return None
    except Diverged as diverged:
        diverged.where = first_place(trainer, diverged)
        _log_diverged(trainer, diverged)
        return diverged
    finally:
        stop.close()
        if lines is not None:
            lines.close()
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ScaleMonitor):  # a training that fails never ends, for a callback
                callback.on_train_end(trainer.args, trainer.state, trainer.control)


def _total_steps(trainer: LoopedTrainer, config: RunConfig) -> int:
    """Return the optimizer steps of the whole run."""
    if config.train.max_steps is not None:
        return config.train.max_steps
    batches = len(trainer.get_train_dataloader())
    return math.ceil(config.train.epochs * max(1, math.ceil(batches / config.train.micro_batches)))


def _take_up_finished(trainer: LoopedTrainer, checkpoint: Path, total: int, watch: Stopwatch) -> None:
    """Be where the run was at its last step, with the closing line that it did not live to write."""
    load_model(trainer.model, checkpoint / "model.safetensors")
    trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
    trainer.state.max_steps = total
    watch.on_train_begin(trainer.args, trainer.state, trainer.control)
    trainer.log({"train_runtime": watch.seconds, "total_flos": trainer.state.total_flos})


def first_place(trainer: LoopedTrainer, diverged: Diverged) -> str | None:
    """Return in which layer and loop the first value that is not finite comes up: its batches are run again.

    None for a step that the optimizer has made, as on an accelerator, which is judged a step later: any weight may be
    lost by then.
    """
    made = diverged.step <= trainer.state.global_step
    if trainer.shared_out:
        return None  # each process would look for it with its share
    if made and diverged.what != LOST_WEIGHT:
        return None
    batches = [] if made else trainer.inputs.get(diverged.step, [])
    with suppress(RuntimeError), trainer.compute_loss_context_manager():  # of memory, or of a compiler
        for batch in batches:
            found = first_not_finite(trainer.looped, {**batch, **trainer.asked_in_training()})
            if found is not None:
                return found
    return next((name for name, p in trainer.looped.named_parameters() if not torch.isfinite(p).all()), None)


def first_not_finite(model: nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """Return the innermost module whose output is not finite first, and its loop; else the first whose squares are not.

    Every norm adds those up. Where they are finite too, the same of gradients: of outputs, then of weights. A module
    that is called once, as a prelude or the readout of the only exit, has no loop.
    """
    heard = _Heard(model)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients: Sequence[Tensor | None] = ()
    with heard, torch.enable_grad():
        loss = model(**inputs)["loss"]
        if not heard.is_told:
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    if heard.is_told:
        return heard.place()
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is not None and not torch.isfinite(gradient).all():
            return f"the gradient of {name}"
    sizes = [0.0 if gradient is None else float(norm(gradient.flatten())) for gradient in gradients]
    if not sizes or torch.isfinite(norm(torch.tensor(sizes))):
        return None
    return f"the squares of the gradient of {list(weights)[sizes.index(max(sizes))]}"


@final
class _Heard:
    """What modules return and the gradients of it, and of which first something is not finite, or its squares are."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.calls: Counter[nn.Module] = Counter()
        self.lost: tuple[str, nn.Module, int] | None = None
        self.large: tuple[str, nn.Module, int] | None = None  # finite but for its squares

    @property
    def is_told(self) -> bool:
        """Whether there is a place."""
        return self.lost is not None or self.large is not None

    def place(self) -> str:
        """Return the place in words."""
        found = self.lost or self.large
        assert found is not None
        where, module, call = found
        return f"{where}, loop {call}" if self.calls[module] > 1 else where

    def __enter__(self) -> None:
        self.handles = [module.register_forward_hook(self._hear) for module in self.names]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hear(self, module: nn.Module, _: Any, output: Any) -> None:
        self.calls[module] += 1
        where, call = self.names[module] or "the loss", self.calls[module]
        for value in output if isinstance(output, tuple) else (output,):
            self._note(value, where, module, call)
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(lambda grad: self._note(grad, f"the gradient of {where}", module, call))

    def _note(self, value: Any, where: str, module: nn.Module, call: int) -> None:
        if self.lost or not isinstance(value, Tensor) or not value.is_floating_point():
            return
        if not torch.isfinite(value).all():
            self.lost = where, module, call
        elif value.ndim and not self.large and not torch.isfinite(norm(value)).all():
            self.large = f"the squares of {where}", module, call


def _log_diverged(trainer: LoopedTrainer, diverged: Diverged) -> None:
    """Log the figures of the step that was not made, and say where it was."""
    sums = trainer.gathered_sums()
    if sums is not None:
        trainer.state.log_history.append({**trainer.sums.line(diverged.step, sums), "step": diverged.step})
    logger.error("%s: stopping; what was saved before is kept.", diverged)


def keep_batch(trainer: LoopedTrainer, diverged: Diverged, folder: Path) -> None:
    """Save the windows of the step that was not finite, to be looked at."""
    inputs = trainer.inputs.get(diverged.step, [])
    if inputs:
        together = {name: torch.cat([batch[name] for batch in inputs]).cpu() for name in inputs[0]}
        with suppress(OSError, SafetensorError):
            save_file(together, folder / BATCH_FILE)


@contextmanager
def _compiler_errors(config: RunConfig) -> Iterator[None]:
    """Raise `InputError` where torch.compile fails: its own errors speak of code that is not the user's."""
    try:
        yield
    except Exception as error:
        if "does not have a deterministic implementation" in str(error):
            said = str(error).partition(" does not have")[0]
            raise InputError(f"train.deterministic: {said} has no such form here; leave it out.") from error
        if not (config.train.compile and is_of_a_compiler(error)):
            raise
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"train.compile failed here ({said}): leave it out.") from error
