"""transformers' Trainer plus metrics of every loop without a sync per step, a stop at the first figure that is not
finite, and checkpoints that carry the sums of an unfinished log line.
"""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.data import StreamedWindows
from loopscale.hf import ShardedTraining, StagedCheckpoints, whole
from loopscale.objective import Terminal
from loopscale.state import room
from loopscale.storage import write_json
from loopscale.system.lock import require_held
from loopscale.system.manifest import told_when_full, write_manifest
from loopscale.train.checkpoints import STREAM_FILE, SUMS_FILE
from loopscale.train.depth_schedules import DepthSchedule, FixedDepth
from loopscale.train.metrics import LoopSums, token_sums
from loopscale.train.optimizers import MuonAndAdamW
from loopscale.train.streamed import StreamedTraining

logger = logging.getLogger(__name__)

NEAR = 0.01  # of the largest number is where a warning of the scale comes: a few channels are far larger than the mean
Fetch = Callable[[], list[float]]
LOST_WEIGHT = "a weight"  # what is not finite, where no step was seen to be


@final
class Diverged(Exception):
    """A training step whose loss, gradient or state is not finite; on a CPU the optimizer has not made it."""

    def __init__(self, step: int, what: str, where: str | None = None) -> None:
        super().__init__(step, what, where)
        self.step, self.what, self.where = step, what, where  # layer and loop where it came up first, in words

    def __str__(self) -> str:
        return f"step {self.step}: {self.what} is not finite" + (f" (first in {self.where})" if self.where else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"step": self.step, "what": self.what, **({"where": self.where} if self.where else {})}


class LoopedTrainer(StagedCheckpoints, ShardedTraining, StreamedTraining, Trainer):
    """Trains a `LoopedForCausalLM` on batches of `input_ids` and `shift_labels`.

    `schedule` gives the loops of every step, those of the model by default; `optimizer` is `adamw` (whichever `args`
    name) or `muon`. Raises `Diverged` at the first step that is
    not finite: at once on a CPU, a step later on a GPU, which is not waited for, but never later than a checkpoint.
    """

    optimizer: Any

    def __init__(
        self,
        *args: Any,
        schedule: DepthSchedule | None = None,
        run: str | None = None,
        optimizer: Literal["adamw", "muon"] = "adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run = run
        self._muon = optimizer == "muon"
        self.sums = LoopSums()
        self.seconds: Callable[[], float] | None = None  # of the whole run, earlier parts included
        self.inputs: dict[int, list[dict[str, Any]]] = {}  # of the step under way and the one before
        self.looped = self.accelerator.unwrap_model(self.model)
        self._supervision = self.looped.supervision
        self._schedule = schedule or FixedDepth(self.looped.num_loops)
        self._pending: tuple[int, Fetch] | None = None
        self._grad_norm: Tensor | None = None
        self._warned = False
        self._hear_gradients()
        self.remove_callback(PrinterCallback)  # it prints raw dictionaries
        self.add_callback(_EveryStep(self))

    def create_optimizer(self, *model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer, of the weights as they are then: where they are sharded, of their shards."""
        if self.optimizer is None and self._muon:
            of = model[0] if model else self.model
            _, settings = self.get_optimizer_cls_and_kwargs(self.args, of)
            rate, decay = settings.pop("lr"), self.args.weight_decay
            self.optimizer = MuonAndAdamW(of, self.get_decay_parameter_names(of), rate, decay, settings)
        return super().create_optimizer(*model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss and keep the metrics of every loop on the device; unsupervised exits only when logged."""
        training = model.training
        asked = self.asked_in_training() if training else {"logits_to_keep": 1, "use_cache": False}  # losses alone
        loss, outputs = super().compute_loss(model, {**inputs, **asked}, True, num_items_in_batch)
        if training:
            self.inputs.setdefault(self.state.global_step + 1, []).append(inputs)
            losses, norms = outputs["loop_losses"].detach(), outputs["loop_norms"].detach()
            supervision, K = self._supervision.at(asked.get("progress")), losses.shape[1]
            seen = [supervision.supervises(k, K) for k in range(K)]
            self.sums.add(token_sums(inputs, losses, norms, seen))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Make one micro-batch's gradient, and sum its loss."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.sums.add_loss(loss.detach())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of every loop since the last line: one transfer per line, not per step.

        The closing line speaks of the whole run, also where it was resumed.
        """
        if "loss" in logs and (sums := self.gathered_sums()) is not None:
            logs |= self.sums.line(self.state.global_step, sums) | self._terminal_share()
            self.sums.start_anew(self.state.global_step, sums[0])
        elif "train_runtime" in logs:
            logs |= self.closing_line(self.state.global_step)
        if isinstance(self.train_dataset, StreamedWindows):  # which has no known end
            self.state.epoch = self.state.global_step / self.state.max_steps
        super().log(logs, start_time)

    def _warn_of_range(self, step: int, norms: Sequence[float]) -> None:
        """Say, once, that the scale nears the largest number that the state, or its square in a norm, can be."""
        width = self.looped.config.hidden_size
        limit = room(torch.float16 if self.args.fp16 else torch.float32, width)
        scales = [norm / width**0.5 for norm in norms]
        if self._warned or not (far := [k for k, scale in enumerate(scales, 1) if NEAR * limit < scale < math.inf]):
            return
        self._warned = True
        if self.args.process_index == 0:
            logger.warning(
                "step %d: the scale after loop %d is %.1e, and no number beyond %.1e can be computed with: hold it "
                "(train.scale_target, a norm penalty), or lower train.learning_rate.",
                *(step, far[0], scales[far[0] - 1], limit),
            )

    def closing_line(self, steps: int) -> dict[str, float]:
        """Return seconds, speed and mean loss of the whole run."""
        sums = self.gathered_sums()
        line = {"train_loss": (self.sums.logged_loss + (0.0 if sums is None else sums[0])) / max(1, steps)}
        if self.seconds is not None:
            seconds, windows = self.seconds(), self.args.train_batch_size * self.args.gradient_accumulation_steps
            line |= {
                "train_runtime": seconds,
                "train_samples_per_second": steps * windows * self.args.world_size / seconds,
                "train_steps_per_second": steps / seconds,
            }
        return line

    def gathered_sums(self) -> tuple[float, list[list[list[float]]]] | None:
        """Return loss and sums of the loops since the last line as plain numbers, meaned over processes."""
        if self.sums.loss is None or self.sums.loops is None:
            return None
        together = torch.cat([self.sums.loss.reshape(1).to(self.sums.loops), self.sums.loops.flatten()])
        together = self.accelerator.reduce(together, "mean").cpu()  # one transfer
        return float(together[0]), together[1:].view(self.sums.loops.shape).tolist()

    def judge_step(self, step: int) -> None:
        """Raise `Diverged` if a step was not finite: this one on a CPU, the one before on an accelerator."""
        figures = self.sums.figures(self._grad_norm)
        waiting, self._pending = self._pending, (step, _fetched(figures))
        if not figures.is_cuda:
            waiting, self._pending = self._pending, None
        if waiting is not None:
            self._judge(*waiting)

    def require_finite(self) -> None:
        """Raise `Diverged` if any step so far, or any weight, is not finite. Waits for the accelerator."""
        waiting, self._pending = self._pending, None
        if waiting is not None:
            self._judge(*waiting)
        if not self.weights_are_finite():
            raise Diverged(self.state.global_step, LOST_WEIGHT)

    def before_checkpoint(self) -> None:
        """Refuse to save what is not finite, or where the run is not, and gather the sums of the line under way."""
        if self.run is not None and self.args.should_save:
            require_held(Path(self.args.output_dir))
        self.require_finite()
        self._kept = self.sums.to_dict(self.gathered_sums())
        self.stood = self.states_of_stream()

    def seal(self, folder: Path) -> None:
        """Add the sums, then the list of what a whole checkpoint holds."""
        write_json(folder / SUMS_FILE, self._kept)
        if self.stood:
            write_json(folder / STREAM_FILE, self.stood)
        write_manifest(folder, self.run)

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Tell of a full disk in a sentence."""
        return told_when_full(folder, f"the checkpoint of step {self.state.global_step}")

    def _judge(self, step: int, fetch: Fetch) -> None:
        figures = fetch()
        loss, gradient, *loops = map(math.isfinite, figures)
        K = len(loops) // 3
        norms, losses = loops[:K], loops[K : 2 * K]
        self._warn_of_range(step, figures[2 + 2 * K :])
        if self.args.world_size > 1 and gradient:  # what every process sees alike
            return
        if not all(norms):
            raise Diverged(step, f"the state after loop {norms.index(False) + 1}")
        if not all(losses):
            raise Diverged(step, f"the loss of exit {losses.index(False) + 1}")
        if not (loss and gradient):
            raise Diverged(step, "the gradient" if loss else "the loss")

    def asked_in_training(self) -> dict[str, Any]:
        """Return what the model's forward is asked for in the step under way."""
        depth = self._schedule.depth(self.state.global_step + 1, self.state.max_steps)
        asked: dict[str, Any] = {"supervised_exits_only": True}
        if self._supervision.changes:
            asked["progress"] = self._progress(self.state.global_step + 1)
        if depth.loops != self.looped.num_loops:
            asked["num_loops"] = depth.loops
        return asked if depth.with_gradient == depth.loops else {**asked, "gradient_loops": depth.with_gradient}

    def _progress(self, step: int) -> float:
        """Return the share of training that was done before a step."""
        return (step - 1) / self.state.max_steps

    def _terminal_share(self) -> dict[str, float]:
        """Return how many of the steps since the last line saw the last exit alone, where that changes."""
        steps = range(self.sums.since + 1, self.state.global_step + 1)
        if not self._supervision.changes or not steps:
            return {}
        terminal = [self._supervision.at(self._progress(step)).name == Terminal.name for step in steps]
        return {"terminal_share": sum(terminal) / len(terminal)}

    def _hear_gradients(self) -> None:
        """Keep the norm of every step's gradient: the Trainer hands it to no callback."""
        clip = self.accelerator.clip_grad_norm_

        def clip_and_keep(*args: Any, **kwargs: Any) -> Any:
            self._grad_norm = whole(clip(*args, **kwargs))
            return self._grad_norm

        self.accelerator.clip_grad_norm_ = clip_and_keep


@final
class _EveryStep(TrainerCallback):
    def __init__(self, trainer: LoopedTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.inputs.pop(state.global_step - 1, None)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.judge_step(state.global_step + 1)


def _fetched(figures: Tensor) -> Fetch:
    """Start copying figures to the host; what is returned waits for them alone, not for what was queued after."""
    if not figures.is_cuda:
        return figures.tolist
    host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
    host.copy_(figures, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def fetch() -> list[float]:
        event.synchronize()
        return host.tolist()

    return fetch
