"""`loopscale train`: one run from its options, and what came out of it."""

import os
from dataclasses import replace

from jsonargparse import Namespace

from loopscale.audit import measured
from loopscale.cli.run_options import PARTS
from loopscale.data import batches
from loopscale.display import console
from loopscale.errors import InputError
from loopscale.system.launcher import processes_started
from loopscale.train import MODEL_FIELDS, DataConfig, RunConfig, TrainConfig, Trained, train
from loopscale.train.checkpoints import last_checkpoint
from loopscale.train.run import known_of
from loopscale.train.run_folder import read_record_of_run

CARD_ROWS, CARD_BATCHES = 4, 4  # windows of held-out text that a model card tells of
EXAMPLES = {"model": "{readout: raw}", "data": "{corpus: stdlib}", "train": "{seed: 1}"}


def run(args: Namespace) -> int:
    """Train, and say what came out."""
    config = replace(run_config(args, args.out), init_from=args.init_from)
    out = console(quiet=os.environ.get("RANK", "0") != "0")
    trained = train(config)
    if trained is None:
        out.print(f"stopped and saved: the same command goes on from {config.out}", soft_wrap=True)
        return 130
    if trained.diverged is not None:
        kept = last_checkpoint(config.folder)
        out.print(
            f"the run diverged at {trained.diverged}: try a lower train.learning_rate or train.clip; "
            + (f"its last checkpoint is {kept}" if kept else "there was no checkpoint before"),
            soft_wrap=True,
        )
        return 1
    if trained.earlier:
        out.print(f"nothing to do: {config.out} was trained before, for {trained.steps} steps", soft_wrap=True)
    else:
        _write_measured_card(config, trained)
        out.print(
            f"trained {trained.steps} steps in {trained.seconds:.0f} s; the model is in {config.out}", soft_wrap=True
        )
    for line in last_words(config, trained):
        out.print(line, highlight=False, soft_wrap=True)
    return 0


def _write_measured_card(config: RunConfig, trained: Trained) -> None:
    """Measure what a model card tells of exits and state; where several processes train, it tells the configuration."""
    if processes_started() > 1:
        return
    if windows := list(batches(trained.data.valid, CARD_ROWS, limit=CARD_BATCHES)):
        known = known_of(read_record_of_run(config.folder), trained.steps)
        trained.model.write_card(config.folder, measured(trained.model, windows, known))


def run_config(args: Namespace, out: str) -> RunConfig:
    """Return the run that the arguments describe; fields of the model at their default are left out.

    Raises `InputError` where a part of it is no group of fields, or they do not fit together.
    """
    for part in PARTS:
        if not isinstance(args[part], Namespace):
            raise InputError(f"{part} is {args[part]!r}: give its fields, for instance {part}: {EXAMPLES[part]}.")
    defaults = {field.name: field.default for field in MODEL_FIELDS}
    model = {key: value for key, value in args.model.as_dict().items() if value != defaults[key]}
    return RunConfig(model, DataConfig(**args.data.as_dict()), TrainConfig(**args.train.as_dict()), args.preset, out)


def last_words(config: RunConfig, trained: Trained) -> list[str]:
    """Return what the last log line says, and whether the run was ended before its time."""
    words = []
    last: dict[str, float] = next((line for line in reversed(trained.history) if "loss" in line), {})
    losses = [value for key, value in last.items() if key.startswith("loop_losses/")]
    norms = [value for key, value in last.items() if key.startswith("loop_norms/")]
    if losses:
        words.append(
            f"training loss of the supervised exits {' '.join(f'{loss:.3f}' for loss in losses)}; "
            f"norm after each loop {' '.join(f'{norm:.1f}' for norm in norms)}"
        )
    if config.train.max_steps is not None and trained.steps < config.train.max_steps:
        words.append(f"it was ended before its {config.train.max_steps} steps, by train.stop_scale")
    return words
