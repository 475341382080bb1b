"""Healing of a retrofitted model in small: adapters, a curriculum of depths, and the original as teacher.

A whole model is healed as any other is trained, `loopscale train --init_from`. This is for what that does not do:
low-rank adapters (PEFT), so that optimizer states are those of the adapters, and distillation.

Letters: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import kl_div
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from loopscale.data import collate
from loopscale.display import progress_bar
from loopscale.errors import InputError
from loopscale.mechanism import Named
from loopscale.model import LoopedForCausalLM
from loopscale.train import DepthSchedule
from loopscale.train.depth_schedules import build_schedule

# matrices of layers that get an adapter, and the loop's own parts, which are trained whole
ADAPTED = r"model\.(prelude|layers|coda)\.\d+\.(self_attn|mlp)\.\w+_proj"
PARTS = ("model.injection.", "model.relaxation.", "model.recurrence.")


@final
@dataclass(frozen=True)
class Healing:
    """How a model is healed.

    Args:
        steps: optimizer steps.
        learning_rate: of AdamW.
        batch_size: windows per step.
        warmup_steps: of a linear warm-up.
        depth: loops of every step, as `train.depth`: fixed, growing, poisson, ...
        lora_rank: of adapters on every matrix of the layers, merged in the end; None trains all weights.
        distillation: share of the loss that is KL(teacher || last exit); the rest is the model's own.
        temperature: of both distributions there.
        seed: of the order of windows and the adapters.
        bf16: matrices are multiplied in bf16.
    """

    steps: int = 100
    learning_rate: float = 1e-4
    batch_size: int = 4
    warmup_steps: int = 0
    depth: Named = "fixed"
    lora_rank: int | None = None
    distillation: float = 0.0
    temperature: float = 1.0
    seed: int = 42
    bf16: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "batch_size", *(["lora_rank"] if self.lora_rank is not None else [])):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1.")
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}: give a number above 0.")
        if self.warmup_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}: give 0 or more.")
        if not 0 <= self.distillation <= 1:
            raise InputError(f"distillation is {self.distillation}: give a share from 0 to 1.")


@final
@dataclass(frozen=True)
class HealingStep:
    """One optimizer step, from 1: the loss in nats per token, and the loops it ran."""

    step: int
    loss: float
    loops: int


def heal(
    model: LoopedForCausalLM,
    windows: Dataset[Tensor],
    how: Healing = Healing(),
    teacher: PreTrainedModel | None = None,
    quiet: bool = False,
) -> list[HealingStep]:
    """Train the model in place on windows of text, and return its steps.

    `windows` are rows of (length + 1) tokens, as `load_data(...).train` holds; `teacher` is the original, for
    distillation. The model is in eval mode afterwards, its adapters merged. Raises `InputError` for a share of
    distillation without a teacher, adapters without PEFT, and a depth that does not end at the model's.
    """
    if how.distillation and teacher is None:
        raise InputError("distillation wants the original as teacher: give teacher, or distillation 0.")
    if not len(windows):  # type: ignore[arg-type]  # map-style, as Trainer wants it
        raise InputError("no window to heal on: give a longer text, or shorter windows.")
    schedule = build_schedule(how.depth, model.config, how.seed)
    set_seed(how.seed)
    trained = model if how.lora_rank is None else _adapted(model, how.lora_rank)
    trainer = _Healer(trained, windows, how, schedule, teacher, quiet)
    try:
        trainer.train()
    finally:
        if how.lora_rank is not None:
            trained.merge_and_unload()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.eval()
    return trainer.lines


def _adapted(model: LoopedForCausalLM, rank: int) -> Any:
    """Return the model with adapters on its layers, and only them and the loop's own parts to be trained."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise InputError("adapters need the peft package: pip install 'loopscale[lora]'.") from error
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED))
    for name, parameter in model.named_parameters():
        if name.startswith(PARTS):
            parameter.requires_grad_(True)
    return adapted


def distilled(
    teacher: Float[Tensor, "batch seq vocab"], student: Float[Tensor, "batch seq vocab"], temperature: float
) -> Float[Tensor, ""]:
    """Return KL(teacher || student) per token, in nats, times the temperature squared (arXiv 1503.02531)."""
    scale = temperature**2 / teacher.shape[:-1].numel()
    p, q = ((logits.float() / temperature).log_softmax(-1) for logits in (teacher, student))
    return scale * kl_div(q, p, reduction="sum", log_target=True)


@final
class _Healer(Trainer):
    def __init__(
        self,
        model: nn.Module,
        windows: Dataset[Tensor],
        how: Healing,
        schedule: DepthSchedule,
        teacher: PreTrainedModel | None,
        quiet: bool,
    ) -> None:
        arguments = TrainingArguments(
            output_dir="unused",
            max_steps=how.steps,
            learning_rate=how.learning_rate,
            warmup_steps=how.warmup_steps,
            lr_scheduler_type="constant_with_warmup",
            per_device_train_batch_size=how.batch_size,
            seed=how.seed,
            bf16=how.bf16,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["shift_labels"],
            use_cpu=not torch.cuda.is_available(),
        )
        super().__init__(model=model, args=arguments, train_dataset=windows, data_collator=collate)
        self.how, self.schedule, self.quiet = how, schedule, quiet
        self.teacher = None if teacher is None else teacher.to(arguments.device)  # as Trainer does with the model
        self.lines: list[HealingStep] = []

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with progress_bar("healing", self.how.steps, self.quiet) as advance:
            self.add_callback(_Advance(advance))
            return super().train(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        how = self.how
        depth = self.schedule.depth(self.state.global_step + 1, how.steps)
        asked = {"num_loops": depth.loops, "gradient_loops": depth.with_gradient, "use_cache": False}
        outputs = model(**inputs, **asked, supervised_exits_only=not how.distillation)
        loss = outputs.loss
        if how.distillation:
            assert self.teacher is not None  # `heal` sees to it
            with torch.no_grad():
                expected = self.teacher(inputs["input_ids"], use_cache=False).logits
            loss = (1 - how.distillation) * loss + how.distillation * distilled(
                expected, outputs.logits, how.temperature
            )
        self.lines.append(HealingStep(self.state.global_step + 1, float(loss.detach()), depth.loops))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep transformers' lines out of the terminal."""


@final
class _Advance(TrainerCallback):
    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.advance(1)
