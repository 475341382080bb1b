"""Run configuration: complete, typed and frozen; presets are the paper's protocol at a size."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from loopscale.errors import InputError, unknown
from loopscale.model import PRESETS, LoopedConfig
from loopscale.model.config import odd_values_told
from loopscale.objective import Supervision, build_supervision
from loopscale.storage import from_json
from loopscale.train.depth_schedules import DepthSchedule, build_schedule

# the least that numbers of `TrainConfig` may be, and those that must be above 0
LEAST: Mapping[str, int] = {
    **dict.fromkeys(("batch_size", "micro_batches", "max_steps", "log_every", "save_every"), 1),
    **dict.fromkeys(("warmup_steps", "evaluate_every", "monitor_every", "workers", "seed", "weight_decay"), 0),
}
MOST_STEPS = 10**12
ABOVE_0 = ("learning_rate", "clip", "epochs", "stop_scale", "scale_target")


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how it is cut.

    Args:
        corpus: stdlib, wikitext-2, wikitext-103, or the path of a text file, folder, JSONL or parquet.
        tokenizer: bytes, words (the paper's regex vocabulary) or a Hugging Face tokenizer.
        sequence_length: tokens the model reads in a row.
        stride: tokens from one training window to the next; the sequence length by default.
        fit_on: splits that `words` is fitted on; the paper's code also fits on validation text (train+valid).
        text_field: field or column of rows that holds the text; found by its usual names by default.
        stream: read the text while training, for one too large for the disk; files, or OWNER/NAME of the hub.
    """

    corpus: str = "stdlib"
    tokenizer: str = "bytes"
    sequence_length: int = 128
    stride: int | None = None
    fit_on: Literal["train", "train+valid"] = "train"
    text_field: str | None = None
    stream: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained: the paper's AdamW protocol unless said otherwise (arXiv 2606.24898).

    Args:
        optimizer: adamw, or muon for the matrices of the layers and AdamW for the rest.
        learning_rate: of the optimizer, constant after the warm-up.
        weight_decay: of the optimizer, on matrices.
        clip: largest norm of the gradient.
        warmup_steps: steps of linear warm-up.
        schedule: constant, or a decay to zero.
        depth: loops of every step: fixed (the model's), uniform (low, high), poisson (mean, sigma, most) or growing
            (start, end, share); with_gradient limits how many loops, the last ones, the gradient goes through.
        batch_size: windows per optimizer step and device, micro-batches included.
        micro_batches: parts that a step's batch is split into to save memory.
        epochs: passes over the training windows.
        max_steps: optimizer steps; takes precedence over epochs.
        seed: of weights, order and dropout.
        precision: auto is bf16 where the hardware computes in it, else float32.
        log_every: optimizer steps between two log lines.
        save_every: optimizer steps between two checkpoints to resume from; a multiple of log_every.
        evaluate_every: optimizer steps between two validation losses; 0 is never.
        checkpoint_loops: recompute each loop in the backward pass, so that memory does not grow with loops.
        shard: share weights, gradients and optimizer state out among the processes (FSDP2).
        compile: torch.compile the shared stack, once for every loop and depth, and the head's passes over logits.
        deterministic: compute every product and sum in one order, so that a GPU gives the same run again; slower.
        workers: processes that load data.
        report_to: trackers of transformers' Trainer (tensorboard, wandb, trackio).
        monitor_every: optimizer steps between two readings of scale, visibility and angular step; 0 is never.
        stop_scale: stop the run once the scale (RMS) after the last loop exceeds this; needs monitor_every.
        scale_target: hold the scale after the last loop here by the norm penalty; needs monitor_every.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    depth: dict[str, Any] | str = "fixed"
    batch_size: int = 64
    micro_batches: int = 1
    epochs: float = 4.0
    max_steps: int | None = None
    seed: int = 42
    precision: Literal["auto", "bf16", "float32"] = "auto"
    log_every: int = 10
    save_every: int = 500
    evaluate_every: int = 0
    checkpoint_loops: bool = False
    shard: bool = False
    compile: bool = False
    deterministic: bool = False
    workers: int = 0
    report_to: list[str] | str = field(default_factory=list)
    monitor_every: int = 0
    stop_scale: float | None = None
    scale_target: float | None = None

    @property
    def trackers(self) -> list[str]:
        """The trackers by name; `none` is none."""
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        return [name for name in names if name != "none"]

    def __post_init__(self) -> None:
        """Check the numbers, and that the steps fit together."""
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise InputError(f"train.{name} is {value}: give {least} or more.")
        for name in ABOVE_0:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"train.{name} is {value}: give a number above 0.")
        if (self.max_steps or 0) >= MOST_STEPS:
            raise InputError(
                f"train.max_steps is {self.max_steps}: {MOST_STEPS:,} milliseconds are over 30 years; give less."
            )
        if self.seed >= 2**32:
            raise InputError(f"train.seed is {self.seed}: give less than 2^32.")
        if self.batch_size % self.micro_batches:
            raise InputError(
                f"train.batch_size {self.batch_size} is not a multiple of train.micro_batches {self.micro_batches}."
            )
        if self.save_every % self.log_every:
            raise InputError(
                f"train.save_every {self.save_every} is not a multiple of train.log_every {self.log_every}: "
                "what is logged between two checkpoints would be lost on resume."
            )
        if self.monitor_every and self.shard:
            raise InputError(
                "train.shard and train.monitor_every: a reading runs parts of the model by themselves, for which each "
                "process needs all of its weights; leave out one of them."
            )
        if not self.monitor_every and (self.stop_scale is not None or self.scale_target is not None):
            raise InputError("train.stop_scale and train.scale_target act at readings: give train.monitor_every too.")


@dataclass(frozen=True)
class RunConfig:
    """A run: its model (fields of `LoopedConfig` that differ from its defaults), data, training and folder."""

    model: Mapping[str, Any]
    data: DataConfig
    train: TrainConfig
    preset: str | None = None
    out: str = "runs/train"
    init_from: str | None = None  # a model by folder, file or hub id, whose weights it starts from

    def __post_init__(self) -> None:
        """Check what concerns more than one part."""
        model = self.model_config(None)
        build_schedule(self.train.depth, model, self.train.seed)
        if self.data.stream:
            _check_stream(self.data, self.train)
        positions = model.max_position_embeddings
        if self.data.sequence_length > positions:
            raise InputError(
                f"data.sequence_length {self.data.sequence_length} is more than the model's {positions} positions: "
                "raise model.max_position_embeddings or shorten the sequence."
            )

    def model_config(self, vocab_size: int | None) -> LoopedConfig:
        """Return the model's configuration; `vocab_size` (a fitted tokenizer's) takes precedence if given."""
        size = {} if vocab_size is None else {"vocab_size": vocab_size}
        with odd_values_told():
            return LoopedConfig(**{**self.model, **size, "trained_loops": None})

    @property
    def schedule(self) -> DepthSchedule:
        """The loops of every step."""
        return build_schedule(self.train.depth, self.model_config(None), self.train.seed)

    @property
    def supervision(self) -> Supervision:
        """Which exits the loss sees, and when."""
        model = self.model_config(None)
        return build_supervision(model.supervision, model.loop_weights, model.entropy_coef)

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "RunConfig":
        """Read what `to_dict` wrote. Raises `InputError` for unknown keys and values of another kind."""
        for part, kind in (("", cls), ("data", DataConfig), ("train", TrainConfig)):
            known = {f.name for f in fields(kind)}
            given = document.get(part, {}) if part else document
            for name in given if isinstance(given, Mapping) else ():
                if name not in known:
                    raise unknown("setting of a run", f"{part}.{name}".lstrip("."), sorted(known))
        return from_json(dict(document), cls, "the configuration of a run")

    def with_model(self, **fields_: Any) -> "RunConfig":
        """Return the run with other fields of the model."""
        return replace(self, model={**self.model, **fields_})


def _check_stream(data: DataConfig, train: TrainConfig) -> None:
    """Refuse what needs the whole text before the first step."""
    if data.tokenizer == "words":
        raise InputError("data.stream: a vocabulary of words is fitted on the whole text; give another data.tokenizer.")
    if train.max_steps is None:
        raise InputError("data.stream: the length of the text is not known before its end; give train.max_steps.")
    if train.workers:
        raise InputError("data.stream: where the text stands is known to the process that reads it; leave out workers.")


_LAPTOP = (DataConfig(), TrainConfig(learning_rate=1.5e-3, batch_size=8, max_steps=400, save_every=100))

_DRAWN = TrainConfig(
    learning_rate=1.5e-3, batch_size=8, max_steps=400, save_every=100, depth={"kind": "poisson", "with_gradient": 4}
)

# What each size is trained on and how; a size's fields of the model are in `loopscale.model.PRESETS`.
RUNS: Mapping[str, tuple[DataConfig, TrainConfig]] = {
    "laptop": _LAPTOP,
    "laptop-rope": _LAPTOP,
    "small": (
        DataConfig(corpus="wikitext-2", tokenizer="words"),
        TrainConfig(learning_rate=1e-3, batch_size=16, max_steps=400, save_every=100),
    ),
    "huginn-laptop": (DataConfig(), _DRAWN),
    "parcae-laptop": (DataConfig(), _DRAWN),
    "fineweb-10m": (  # 100M tokens; the text is yours to give, a sample of FineWeb for instance
        DataConfig(tokenizer="words", sequence_length=512),
        TrainConfig(
            learning_rate=1e-3,
            batch_size=16,
            max_steps=12_207,
            warmup_steps=200,
            schedule="cosine",
            depth={"kind": "uniform", "low": 8, "high": 32, "with_gradient": 8},
        ),
    ),
    "44m": (
        DataConfig(corpus="wikitext-103", tokenizer="words", sequence_length=256, stride=128),
        TrainConfig(batch_size=64),
    ),
    "129m": (
        DataConfig(corpus="wikitext-103", tokenizer="words", sequence_length=256, stride=128),
        TrainConfig(batch_size=32),
    ),
    "1.4b": (
        DataConfig(corpus="wikitext-103", tokenizer="words", sequence_length=256, stride=128),
        TrainConfig(batch_size=32, micro_batches=4, checkpoint_loops=True),
    ),
}


def preset_run(name: str) -> RunConfig:
    """Return the run of a named size.

    Raises `InputError` for an unknown name.
    """
    if name not in RUNS:
        raise unknown("preset", name, RUNS)
    data, train = RUNS[name]
    fitted = data.tokenizer == "words"  # to that many; any other tokenizer decides it
    model = {key: value for key, value in PRESETS[name].items() if key != "vocab_size" or fitted}
    return RunConfig(model=model, data=data, train=train, preset=name)


# The fields of the model that a run may set, with their types and defaults.
MODEL_FIELDS = tuple(f for f in fields(LoopedConfig) if f.name in LoopedConfig.__annotations__)
