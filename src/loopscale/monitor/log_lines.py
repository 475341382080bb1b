"""Logging of the figures: a plain callable, or transformers' Trainer with the trackers it reports to."""

from collections.abc import Callable
from typing import Any, final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.errors import InputError

Log = Callable[[dict[str, float], int], Any]


@final
class ThroughTrainer(TrainerCallback):
    """Hands figures to a Trainer's log at the end of the step they are of: its trackers and history have them."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._waiting: list[dict[str, float]] = []

    def __call__(self, scalars: dict[str, float], step: int) -> None:
        """Keep the figures until the step ends: the Trainer counts it only then."""
        self._waiting.append(scalars)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log what waits."""
        due, waiting, self._waiting = control.should_log, self._waiting, []
        for scalars in waiting:
            self.trainer.log(scalars)
        control.should_log = due  # a Trainer's log takes the line at the end of the step for made


def log_of(log: Any) -> Log | None:
    """Return what takes (scalars, step): a callable as it is, or a Trainer's log. Raises `InputError` for others."""
    if log is None:
        return None
    if hasattr(log, "add_callback") and hasattr(log, "log"):
        through = ThroughTrainer(log)
        log.add_callback(through)
        return through
    if not callable(log):
        raise InputError(
            f"log is a {type(log).__name__}: give a callable of (scalars, step), such as wandb.log, or a Trainer."
        )
    return log
