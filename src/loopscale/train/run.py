"""One training run: start or go on in its folder, and leave beside the weights where they came from."""

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from loopscale.audit import ScaleMonitor, static_warning
from loopscale.data import Data, collate, load_data
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.storage import write_json
from loopscale.train.arguments import training_arguments
from loopscale.train.checkpoints import check_checkpoint
from loopscale.train.config import RunConfig
from loopscale.train.folder import (
    CHECKPOINTS,
    DONE_FILE,
    SECONDS_FILE,
    check_corpus,
    check_folder,
    check_processes,
    last_checkpoint,
    only_one,
    read_record,
    seconds_before,
    write_config,
)
from loopscale.train.trainer import LoopedTrainer, PresentIntervals, StopOnSignal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a run left: the model in eval mode, its data, the optimizer steps and seconds it took, and the log lines."""

    model: LoopedForCausalLM
    data: Data
    steps: int
    seconds: float
    history: list[dict[str, Any]]


def load_run_data(config: RunConfig, quiet: bool = False) -> Data:
    """Return the run's corpus, tokenized and cut into windows."""
    words = config.data.tokenizer == "words"
    return load_data(
        config.data.corpus,
        config.data.tokenizer,
        vocab_size=config.model_config(None).vocab_size if words else None,
        sequence_length=config.data.sequence_length,
        stride=config.data.stride,
        fit_on=config.data.fit_on,
        text_field=config.data.text_field,
        quiet=quiet,
    )


def train(config: RunConfig, callbacks: Sequence[TrainerCallback] = (), quiet: bool = False) -> Trained | None:
    """Train, or go on where the folder's last checkpoint stands; return None if a signal stopped it (it can go on).

    Raises `InputError` for data that does not fit the model or a step, for a folder that belongs to another
    configuration or text, and while another process trains there.
    """
    args = training_arguments(config, quiet)
    check_folder(config)
    check_processes(config.folder, args.world_size)
    with args.main_process_first(desc="tokenizing"):
        data = load_run_data(config, quiet)
    check_corpus(config.folder, data)
    if (config.folder / DONE_FILE).exists():
        return _finished(config, data, args)
    _check_windows(config, data, args.world_size)
    set_seed(config.train.seed)
    model = LoopedForCausalLM(config.model_config(_vocabulary(config, data)))
    data.require_vocabulary(model.config.vocab_size)
    model.checkpoint_loops = config.train.checkpoint_loops
    if config.train.compile:
        model.compile_regions()
    with only_one(config.folder) if args.should_save else nullcontext():
        return _train(config, model, data, args, callbacks)


def _train(
    config: RunConfig,
    model: LoopedForCausalLM,
    data: Data,
    args: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
) -> Trained | None:
    folder, stop, watch = config.folder, StopOnSignal(), Stopwatch(config.folder)
    checkpoint = check_checkpoint(last_checkpoint(folder))
    if args.should_save:
        write_config(config, data, args.world_size)
        if not _holds_scale(config, callbacks) and (warning := static_warning(model.config)):
            logger.warning("%s", warning)
    trainer = LoopedTrainer(
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=data.train,
        eval_dataset=data.valid,
        callbacks=[PresentIntervals(), stop, watch, *callbacks, *_monitor(config)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    stopped = stop.received and trainer.state.global_step < trainer.state.max_steps
    record = {"steps": trainer.state.global_step, "seconds": watch.seconds, "history": trainer.state.log_history}
    if args.should_save and not stopped:
        model.save_pretrained(folder)
        data.tokenizer.save_pretrained(folder)
        write_json(folder / DONE_FILE, record)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return None if stopped else Trained(model.eval(), data, **record)


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


def _finished(config: RunConfig, data: Data, args: TrainingArguments) -> Trained:
    """Return what a finished run left, on the device it would train on."""
    record = read_record(config.folder)
    try:
        model = LoopedForCausalLM.from_pretrained(config.folder).to(args.device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{config.folder} holds no whole model: remove the folder to train anew.") from error
    return Trained(model.eval(), data, record["steps"], record["seconds"], record["history"])


def _check_windows(config: RunConfig, data: Data, processes: int) -> None:
    """Refuse a text too short for one step."""
    needed = config.train.batch_size * processes
    if len(data.train) < needed:
        raise InputError(
            f"corpus {data.corpus.name} makes {len(data.train)} training windows of {config.data.sequence_length} "
            f"tokens, and a step takes {needed}: give more text, or lower train.batch_size or data.sequence_length."
        )


def _monitor(config: RunConfig) -> list[TrainerCallback]:
    train = config.train
    if not train.monitor_every:
        return []
    return [ScaleMonitor(train.monitor_every, stop_scale=train.stop_scale, scale_target=train.scale_target)]


def _holds_scale(config: RunConfig, callbacks: Sequence[TrainerCallback]) -> bool:
    """Return whether a controller sets the norm penalty."""
    controlled = any(isinstance(callback, ScaleMonitor) and callback.controller is not None for callback in callbacks)
    return controlled or config.train.scale_target is not None


def _vocabulary(config: RunConfig, data: Data) -> int | None:
    """Return the embedding's size where the tokenizer decides it: when the configuration does not."""
    return None if "vocab_size" in config.model else data.vocab_size
