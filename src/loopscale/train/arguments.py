"""A run in transformers' words, and what its processes wait for."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import product

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from loopscale.data import Data, StreamedWindows
from loopscale.errors import InputError
from loopscale.hf import cpu_multiplies_bf16
from loopscale.model import LoopedForCausalLM
from loopscale.model.size import amount, memory, require_room
from loopscale.train.checkpoints import CHECKPOINTS
from loopscale.train.config import RunConfig
from loopscale.train.depth_schedules import Depth

WORKER = 50_000_000  # bytes of a process that loads data, at least
KEPT_CHECKPOINTS = 2  # the last, and the one to fall back to if it is damaged


def training_arguments(config: RunConfig) -> TrainingArguments:
    """Translate the run into transformers' arguments.

    Raises `InputError` for a tracker that is not installed, and where one process sees several GPUs: it would train a
    batch on each without being asked.
    """
    for name in config.train.trackers:
        if name not in (known := get_available_reporting_integrations()):
            here = f"here are {', '.join(known)}" if known else "none is installed here"
            extra = " (pip install tensorboard)" if name == "tensorboard" else ""
            raise InputError(f"train.report_to names {name}, and {here}: install it{extra}, or leave it out.")
    train, cuda = config.train, uses_cuda()
    args = TrainingArguments(
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
        bf16=precision(config) == "bf16",
        use_cpu=not cuda,
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,  # it would sync every step
        save_steps=train.save_every,
        save_total_limit=KEPT_CHECKPOINTS,
        eval_strategy="steps" if train.evaluate_every else "no",
        eval_steps=train.evaluate_every or None,
        prediction_loss_only=True,
        label_names=["shift_labels"],
        dataloader_drop_last=True,
        dataloader_num_workers=train.workers,
        dataloader_pin_memory=cuda,
        ddp_find_unused_parameters=False,  # corrected where a step may leave some out
        remove_unused_columns=False,
        report_to=train.trackers or "none",
        disable_tqdm=True,  # our own lines say more
    )
    if args.n_gpu > 1:
        raise InputError(
            f"one process sees {args.n_gpu} GPUs: start one process for each (torchrun --nproc_per_node {args.n_gpu} "
            "-m loopscale train ...), or show it one (CUDA_VISIBLE_DEVICES=0)."
        )
    return args


def uses_cuda() -> bool:
    """Return whether to train on CUDA GPUs: where there is one, unless accelerate's variable says CPU."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in {"1", "true", "yes"}


def precision(config: RunConfig) -> str:
    """Return what the run computes in: as told, or bf16 where the hardware multiplies bf16 matrices natively."""
    if config.train.precision != "auto":
        return config.train.precision
    if uses_cuda():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if cpu_multiplies_bf16() else "float32"


def unreached(model: LoopedForCausalLM, depths: Collection[Depth]) -> tuple[set[str], set[str]]:
    """Return the names of parameters that the loss reaches at none of these depths, and at some of them only.

    The graph itself is asked, by a backward pass over two tokens: what configuration leaves a part without a gradient
    need not be known here. Gradients and random state stay as they were.
    """
    device = next(model.parameters()).device
    ids = torch.zeros((1, 2), dtype=torch.long, device=device)
    reached: list[set[str]] = []
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for depth, progress in product(depths, (0.0, 1.0) if model.supervision.changes else (None,)):
            asked = {"num_loops": depth.loops, "gradient_loops": depth.with_gradient, "progress": progress}
            loss = model(input_ids=ids, shift_labels=ids, supervised_exits_only=True, **asked).loss
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            reached.append({name for name, grad in zip(named, grads, strict=True) if grad is not None})
    always, ever = set.intersection(*reached), set.union(*reached)
    return named.keys() - ever, ever - always


@contextmanager
def reached_parameters(trainer: Trainer, parts: tuple[set[str], set[str]] | None) -> Iterator[None]:
    """Keep parameters that no loss reaches, as `unreached` found them, out of what several processes wait for.

    The optimizer has them all the same: its state is then that of one process.
    """
    if parts is None:
        yield
        return
    never, sometimes = parts
    trainer.create_optimizer()
    trainer.args.ddp_find_unused_parameters = bool(sometimes)
    left_out = [p for name, p in trainer.model.named_parameters() if name in never]
    for parameter in left_out:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in left_out:
            parameter.requires_grad_(True)


def check_room(config: RunConfig, args: TrainingArguments) -> None:
    """Refuse what this machine cannot hold, before it is made."""
    tokens = args.per_device_train_batch_size * config.data.sequence_length
    kept, device = not config.train.checkpoint_loops, "cpu" if args.use_cpu else "cuda"
    shared = args.world_size if config.train.shard else 1
    require_room(config.model_config(None), "this run", tokens, kept, device, shared)
    if (needed := config.train.workers * WORKER) > (there := memory()):
        raise InputError(
            f"train.workers is {config.train.workers:,}: so many processes would need at least {amount(needed)} of "
            f"memory, and this machine has {amount(there)}: give at most one for each of its {os.cpu_count()} cores."
        )


def check_windows(config: RunConfig, data: Data, processes: int) -> None:
    """Refuse a text too short for one step."""
    needed = config.train.batch_size * processes
    if isinstance(data.train, StreamedWindows):
        return
    if len(data.train) < needed:
        raise InputError(
            f"corpus {data.corpus.name} makes {len(data.train)} training windows of {config.data.sequence_length} "
            f"tokens, and a step takes {needed}: give more text, or lower train.batch_size or data.sequence_length."
        )
