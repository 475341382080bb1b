"""A run in transformers' words."""

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from loopscale.errors import InputError
from loopscale.train.config import RunConfig
from loopscale.train.folder import CHECKPOINTS


def training_arguments(config: RunConfig, quiet: bool = False) -> TrainingArguments:
    """Translate the run into transformers' arguments.

    Raises `InputError` for a tracker that is not installed, and where one process sees several GPUs: it would train a
    batch on each without being asked.
    """
    for name in config.train.report_to:
        if name not in (known := get_available_reporting_integrations()):
            here = f"here are {', '.join(known)}" if known else "none is installed here"
            raise InputError(f"train.report_to names {name}, and {here}: install it, or leave it out.")
    train, model, cuda = config.train, config.model_config(None), torch.cuda.is_available()
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
        ddp_find_unused_parameters=model.exit_gate and model.supervision != "exit_gate",  # a gate that no loss reads
        remove_unused_columns=False,
        report_to=train.report_to or "none",
        disable_tqdm=quiet,
    )
    if args.n_gpu > 1:
        raise InputError(
            f"one process sees {args.n_gpu} GPUs: start one process for each (torchrun --nproc_per_node {args.n_gpu} "
            "-m loopscale train ...), or show it one (CUDA_VISIBLE_DEVICES=0)."
        )
    return args


def computes_in_bf16(precision: str) -> bool:
    """Return whether to run under bf16 autocast: as told, or where the hardware multiplies bf16 matrices natively."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():  # nor is the question below, then
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
