"""One training run in its folder: start, resume, refuse a folder that belongs to another run, leave everything beside
the weights that says where they came from.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from loopscale.audit import ScaleMonitor, static_warning
from loopscale.data import Data, collate, load_data
from loopscale.environment import environment
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.train.config import RunConfig
from loopscale.train.trainer import LoopedTrainer, StopOnSignal

logger = logging.getLogger(__name__)
RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
DONE_FILE = "training.json"
SECONDS_FILE = "seconds.json"  # of the parts of a run before it was stopped
# what may differ between the start and the resumption of a run
FREE_KEYS = ("log_every", "save_every", "evaluate_every", "workers", "report_to")


@dataclass(frozen=True)
class Trained:
    """What a run left: the model in eval mode, its data, the optimizer steps and seconds it took, and the log lines."""

    model: LoopedForCausalLM
    data: Data
    steps: int
    seconds: float
    history: list[dict[str, Any]]


def load_run_data(config: RunConfig) -> Data:
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
    )


def train(config: RunConfig, callbacks: Sequence[TrainerCallback] = (), quiet: bool = False) -> Trained | None:
    """Train, or go on where the folder's last checkpoint stands; return None if a signal stopped it (it can go on).

    Raises `InputError` for data that does not fit the model, or a folder that belongs to another configuration.
    """
    args = training_arguments(config, quiet)
    if args.process_index == 0:
        check_folder(config)
    with args.main_process_first(desc="tokenizing"):
        data = load_run_data(config)
    set_seed(config.train.seed)
    model = LoopedForCausalLM(config.model_config(_vocabulary(config, data)))
    data.require_vocabulary(model.config.vocab_size)
    folder = config.folder
    if (folder / DONE_FILE).exists():
        record = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        model = LoopedForCausalLM.from_pretrained(folder)
        return Trained(model.eval(), data, record["steps"], record["seconds"], record["history"])

    stop = StopOnSignal()
    trainer = LoopedTrainer(
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=data.train,
        eval_dataset=data.valid,
        callbacks=[stop, *callbacks, *_monitor(config)],
    )
    model.checkpoint_loops = config.train.checkpoint_loops
    if config.train.compile:
        model.compile_regions()
    if args.should_save:
        corpus = {"name": data.corpus.name, "sha256": data.corpus.sha256}
        write_config(config, corpus=corpus, environment=environment())
        if config.train.scale_target is None and (warning := static_warning(model.config)):
            logger.warning("%s", warning)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    seconds = time.perf_counter() - start + _seconds_before(folder)
    stopped = stop.received is not None and trainer.state.global_step < trainer.state.max_steps
    record = {"steps": trainer.state.global_step, "seconds": seconds, "history": trainer.state.log_history}
    if args.should_save and stopped:
        _write(folder / CHECKPOINTS / SECONDS_FILE, seconds)
    elif args.should_save:
        model.save_pretrained(folder)
        data.tokenizer.save_pretrained(folder)
        _write(folder / DONE_FILE, record)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return None if stopped else Trained(model.eval(), data, **record)


def check_folder(config: RunConfig) -> bool:
    """Return whether the folder already holds this run, finished or not.

    Raises `InputError` where it holds something else.
    """
    path = config.folder / RUN_FILE
    if path.exists() and not started(config.folder):
        return False
    if not path.exists():
        if config.folder.is_dir() and any(config.folder.iterdir()):
            raise InputError(f"{config.folder} is not empty and holds no loopscale run: choose another --out.")
        return False
    if differing := differences(read_config(config.folder).to_dict(), config.to_dict()):
        raise InputError(
            f"{config.folder} belongs to another configuration ({', '.join(differing)} differ): choose another --out, "
            "or remove the folder to train anew."
        )
    return True


def started(folder: Path) -> bool:
    """Return whether a folder holds anything of a run that took time: a checkpoint or a finished model."""
    return (folder / DONE_FILE).exists() or last_checkpoint(folder) is not None


def write_config(config: RunConfig, **facts: Any) -> None:
    """Write the run's configuration into its folder, with what else is known of it."""
    _write(config.folder / RUN_FILE, {"config": config.to_dict(), **facts})


def read_config(folder: Path) -> RunConfig:
    """Return the configuration in a run's folder; raises `InputError` where there is none."""
    path = folder / RUN_FILE
    try:
        return RunConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not readable as a run: remove {folder} or choose another --out.") from error


def training_arguments(config: RunConfig, quiet: bool = False) -> TrainingArguments:
    """Translate the run into transformers' arguments."""
    train, cuda = config.train, torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(config.folder / CHECKPOINTS),
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.clip,
        warmup_steps=train.warmup_steps,
        lr_scheduler_type="constant_with_warmup" if train.schedule == "constant" else train.schedule,
        per_device_train_batch_size=train.batch_size // train.micro_batches,
        per_device_eval_batch_size=train.batch_size // train.micro_batches,
        gradient_accumulation_steps=train.micro_batches,
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        seed=train.seed,
        bf16=computes_in_bf16(train.precision),
        use_cpu=not cuda,
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,  # it would sync every step
        save_steps=train.save_every,
        save_total_limit=1,
        eval_strategy="steps" if train.evaluate_every else "no",
        eval_steps=train.evaluate_every or None,
        prediction_loss_only=True,
        label_names=["shift_labels"],
        dataloader_drop_last=True,
        dataloader_num_workers=train.workers,
        dataloader_pin_memory=cuda,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        report_to=train.report_to or "none",
        disable_tqdm=quiet,
    )


def computes_in_bf16(precision: str) -> bool:
    """Return whether to run under bf16 autocast: as told, or where the hardware multiplies bf16 matrices natively."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint to resume from, if any."""
    checkpoints = folder / CHECKPOINTS
    return get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None


def _monitor(config: RunConfig) -> list[TrainerCallback]:
    train = config.train
    if not train.monitor_every:
        return []
    return [ScaleMonitor(train.monitor_every, stop_scale=train.stop_scale, scale_target=train.scale_target)]


def _vocabulary(config: RunConfig, data: Data) -> int | None:
    """Return the embedding's size where the tokenizer decides it: when the configuration does not."""
    return None if "vocab_size" in config.model else len(data.tokenizer)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names that differ, apart from those that may."""
    names = []
    for key in sorted({*before, *now} - {*FREE_KEYS, "out"}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def _seconds_before(folder: Path) -> float:
    """Return the training time of the parts before this one."""
    path = folder / CHECKPOINTS / SECONDS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0


def _write(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    staging.replace(path)
