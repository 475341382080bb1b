"""Training by transformers and accelerate: the state of their process, the arithmetic of a CPU, checkpoints."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import distributed, nn


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices natively."""
    if not torch.backends.mkldnn.is_available():  # nor is the question below, then
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()


@contextmanager
def accelerate_state() -> Iterator[None]:
    """Give back accelerate's process-wide state: a Trainer replaces it. Kept where processes train together."""
    kinds = (PartialState, AcceleratorState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    try:
        yield
    finally:
        if not (distributed.is_available() and distributed.is_initialized()):
            for kind, state in zip(kinds, before, strict=True):
                kind._shared_state.clear()
                kind._shared_state.update(state)


class StagedCheckpoints:
    """Mixin of transformers' Trainer that writes each checkpoint whole or not at all.

    The Trainer writes file by file into the checkpoint's folder; a killed save would leave half of one, and be resumed
    from. Here it writes into a staging folder, which `seal` may add to, and that is moved into place.
    """

    STAGING = ".staging"
    args: Any
    accelerator: Any
    _saving = False

    def before_checkpoint(self) -> None:
        """Prepare a checkpoint; called in every process."""

    def seal(self, folder: Path) -> None:
        """Complete a checkpoint that is written but not yet in its place; called in one process."""

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Return what surrounds the writing, to tell of errors."""
        return nullcontext()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)  # type: ignore[misc]
        return str(Path(folder, self.STAGING)) if self._saving else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints  # here: Trainer is slow to import

        self.before_checkpoint()
        folder = Path(super()._get_output_dir(trial))  # type: ignore[misc]
        if self.args.should_save:
            shutil.rmtree(folder / self.STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            with self.writing(folder):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with self.writing(folder):
                for checkpoint in (folder / self.STAGING).iterdir():
                    self.seal(checkpoint)
                    target = folder / checkpoint.name
                    shutil.rmtree(target, ignore_errors=True)
                    checkpoint.replace(target)
                (folder / self.STAGING).rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
