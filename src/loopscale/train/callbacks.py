"""Callbacks of a run: a stop that saves, intervals of the present call, the clock of the whole run, its log lines."""

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.audit import ScaleMonitor
from loopscale.display import console, duration, number, sparkline
from loopscale.storage import write_json
from loopscale.system.process import in_main_thread
from loopscale.train.arguments import precision
from loopscale.train.checkpoints import CHECKPOINTS
from loopscale.train.config import RunConfig
from loopscale.train.run_folder import SECONDS_FILE, seconds_before


@final
class PresentIntervals(TrainerCallback):
    """Log, save and evaluate as often as this run says, not as often as the checkpoint it goes on from did."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Correct what was read from the checkpoint."""
        state.compute_steps(args, state.max_steps)


@final
class StopOnSignal(TrainerCallback):
    """Save and stop after the step in which SIGTERM or SIGINT arrives, so that the run resumes exactly there.

    Several processes agree at log lines, where they meet anyway: a signal may reach them in different steps. Outside
    the main thread no signal arrives, and none is listened for. A second Ctrl-C does what the first would have done
    without this callback.
    """

    def __init__(self) -> None:
        self.received = False
        self._alone = True
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Listen."""
        self._alone = args.world_size == 1
        if in_main_thread() and not self._before:
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
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop listening."""
        self.close()

    def close(self) -> None:
        """Give the signals back; a second time does nothing."""
        for which, handler in self._before.items():
            signal.signal(which, signal.SIG_DFL if handler is None else handler)  # None: not from Python
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if self._alone and number == signal.SIGINT:
            before = self._before.pop(number, None)
            signal.signal(number, signal.SIG_DFL if before is None else before)


@final
class Stopwatch(TrainerCallback):
    """Counts the seconds of training, those of the parts before it included: each checkpoint has its own count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = self.start = 0.0

    @property
    def seconds(self) -> float:
        """Seconds up to now."""
        return self.before + time.perf_counter() - self.start

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start where the checkpoint stood."""
        self.before, self.start = seconds_before(self.folder), time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the count for who goes on from here."""
        if args.should_save:
            write_json(self.folder / CHECKPOINTS / SECONDS_FILE, self.seconds)


@final
class Lines(TrainerCallback):
    """Log lines of the first process: step, loss, losses and norms of the loops, speed and time left.

    Outside a terminal each is a line of text, to be kept in a file; in a terminal one line is redrawn.
    """

    def __init__(self, tokens_per_step: int, to: Console | None = None) -> None:
        self.console = to or console()
        self.tokens_per_step = tokens_per_step
        self._live: Live | None = None
        self._began = self._last = 0.0
        self._first_step = self._last_step = 0
        self._norms: list[float] = []

    def introduce(self, trainer: Trainer, config: RunConfig, steps: int) -> None:
        """Print what is trained, on what."""
        if trainer.is_world_process_zero():
            size, windows = trainer.model.num_parameters() / 1e6, config.train.batch_size * trainer.args.world_size
            self._say(
                f"{size:.2f}M parameters, {steps} steps of {windows} windows of {config.data.sequence_length} tokens, "
                f"{precision(config)} on {trainer.args.device.type}"
            )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._began = self._last = time.monotonic()
        self._first_step = self._last_step = state.global_step
        if state.is_world_process_zero and self.console.is_terminal:
            self._live = Live(Text(""), console=self.console, auto_refresh=False)
            self._live.start()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, Any], **_: Any
    ) -> None:
        """Print a line of training or of validation; the closing line is left to the caller's last words."""
        if not state.is_world_process_zero:
            return
        step = f"step {state.global_step}/{state.max_steps}"
        if "loss" in logs:
            speed, left = self._pace(state)
            self._norms += [value for key, value in logs.items() if key.startswith("loop_norms/")][-1:]
            if self._live is None:
                self._say(f"{step} {in_words(logs)} {speed} {left} left")
            else:
                self._say(live_line(step, logs, self._norms, speed, left, self.console.width))
        elif "eval_loss" in logs:
            self._say(f"{step} validation loss {logs['eval_loss']:.3f}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)
        else:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _pace(self, state: TrainerState) -> tuple[str, str]:
        """Return the speed since the last line, and the time left."""
        now, step = time.monotonic(), state.global_step
        speed = (step - self._last_step) * self.tokens_per_step / max(now - self._last, 1e-9)
        left = (now - self._began) * (state.max_steps - step) / max(1, step - self._first_step)
        self._last, self._last_step = now, step
        return f"{speed:,.0f} tok/s", duration(left)


def live_line(step: str, line: Mapping[str, Any], norms: Sequence[float], speed: str, left: str, width: int) -> str:
    """Return a log line as one line of a terminal of that width; what there is no room for is left out, last first.

    `norms` are those of the last loop in the log lines so far: their course is drawn, the latest is said.
    """
    losses = [value for key, value in line.items() if key.startswith("loop_losses/")]
    parts = {
        "step": step,
        "loss": f"loss {line['loss']:.3f}",
        "losses": f"loops {' '.join(f'{value:.2f}' for value in losses)}" if losses else "",
        "norm": f"norm {sparkline(norms)} {number(norms[-1], 3)}" if norms else "",
        "speed": speed,
        "left": f"{left} left",
    }
    for missing in ("", "speed", "losses", "norm", "left"):
        parts[missing] = ""
        text = " | ".join(part for part in parts.values() if part)
        if cell_len(text) <= width:
            break
    return text


def in_words(line: Mapping[str, Any]) -> str:
    """Return loss, and losses and norms of the loops, of a log line."""
    words = [f"loss {line['loss']:.3f}"]
    for name, form in (("losses", ".3f"), ("norms", ".1f")):
        values = [value for key, value in line.items() if key.startswith(f"loop_{name}/")]
        if values:
            words.append(f"{name} {' '.join(format(value, form) for value in values)}")
    if share := line.get("terminal_share"):
        words.append("terminal" if share == 1 else f"terminal {share:.0%}")
    return " ".join(words)


def scale_monitors(config: RunConfig) -> list[ScaleMonitor]:
    """Return what reads and holds the scale of a run, where its settings ask for it."""
    train = config.train
    if not train.monitor_every:
        return []
    return [ScaleMonitor(train.monitor_every, stop_scale=train.stop_scale, scale_target=train.scale_target)]


def holds_scale(config: RunConfig, callbacks: Sequence[TrainerCallback]) -> bool:
    """Return whether a controller sets the norm penalty."""
    controlled = any(isinstance(callback, ScaleMonitor) and callback.controller is not None for callback in callbacks)
    return controlled or config.train.scale_target is not None
