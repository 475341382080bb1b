"""transformers' Trainer plus three things: metrics of every loop without a sync per step, checkpoints that are written
whole or not at all, and a stop that saves.
"""

import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

LOOP_METRICS = ("loop_losses", "loop_norms")
STAGING = ".staging"


class LoopedTrainer(Trainer):
    """Trains a `LoopedForCausalLM` on batches of `input_ids` and `shift_labels`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop_sums: Tensor | None = None  # (2, K) on the model's device, summed since the last log line
        self._loop_batches = 0
        self._saving = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss and keep the metrics of every loop on the device; unsupervised exits only when logged."""
        training = model.training
        asked = {"supervised_exits_only": True} if training else {"logits_to_keep": 1}  # evaluation reads losses alone
        loss, outputs = super().compute_loss(model, {**inputs, **asked}, True, num_items_in_batch)
        if training:
            metrics = torch.stack([outputs[name].detach().mean(0) for name in LOOP_METRICS])
            self._loop_sums = metrics if self._loop_sums is None else self._loop_sums + metrics
            self._loop_batches += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean loss and norm of every loop since the last line: one transfer per line, not per step."""
        if "loss" in logs and self._loop_sums is not None:
            means = self.accelerator.reduce(self._loop_sums / self._loop_batches, "mean")
            supervision = self.accelerator.unwrap_model(self.model).supervision
            losses, norms = means.tolist()
            seen = [k for k in range(len(losses)) if supervision.supervises(k, len(losses))]
            logs |= {f"loop_losses/{k + 1}": losses[k] for k in seen}
            logs |= {f"loop_norms/{k}": norm for k, norm in enumerate(norms, 1)}
            self._loop_sums, self._loop_batches = None, 0
        super().log(logs, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder, STAGING)) if self._saving else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write into a staging folder, then move it into place: a killed save leaves the last good checkpoint."""
        folder = Path(super()._get_output_dir(trial))
        if self.args.should_save:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            for checkpoint in (folder / STAGING).iterdir():
                _sync(checkpoint)
                target = folder / checkpoint.name
                shutil.rmtree(target, ignore_errors=True)
                checkpoint.replace(target)
            (folder / STAGING).rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


class PresentIntervals(TrainerCallback):
    """Log, save and evaluate as often as this run says, not as often as the checkpoint it goes on from did."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Correct what was read from the checkpoint."""
        state.compute_steps(args, state.max_steps)


class StopOnSignal(TrainerCallback):
    """Save and stop after the step in which SIGTERM or SIGINT arrives, so that the run resumes exactly there.

    Several processes agree at log lines, where they meet anyway: a signal may reach them in different steps.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Listen."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint and a stop."""
        if args.world_size > 1:
            if not control.should_log:
                return
            anyone = torch.tensor(float(self.received), device=args.device)
            torch.distributed.all_reduce(anyone)
            self.received = bool(anyone)
        if self.received:
            control.should_log = control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def _sync(folder: Path) -> None:
    """Wait until every file of the folder is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
