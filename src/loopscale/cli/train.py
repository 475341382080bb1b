"""Train one looped model: any size, readout, recurrence and supervision, on your text or a known corpus.

Starting the same command again goes on where it was stopped. The folder holds the model and its tokenizer (load them
with transformers), run.json (resolved configuration, versions, revision, corpus hash) and training.json (log lines).
"""

import math
import os
import sys

from jsonargparse import Namespace
from rich.console import Console

from loopscale.cli.parser import Parser
from loopscale.cli.run_arguments import add_run_arguments, run_config
from loopscale.train import RunConfig, Trained, started, train
from loopscale.train.folder import last_checkpoint


def add_arguments(parser: Parser) -> None:
    """Add the run's arguments and its folder."""
    add_run_arguments(parser)
    parser.add_argument("--out", type=str, default="runs/train", help="folder of the run")


def run(args: Namespace) -> int:
    """Train, and say what came out."""
    config = run_config(args, args.out)
    console = Console(width=None if sys.stdout.isatty() else 10_000, quiet=os.environ.get("RANK", "0") != "0")
    was_done = started(config.folder) and last_checkpoint(config.folder) is None
    trained = train(config)
    if trained is None:
        console.print(f"stopped and saved: the same command goes on from {config.out}")
        return 130
    if was_done:
        console.print(f"nothing to do: {config.out} was trained before, for {trained.steps} steps")
    else:
        console.print(f"trained {trained.steps} steps in {trained.seconds:.0f} s; the model is in {config.out}")
    for line in last_words(config, trained):
        console.print(line, highlight=False)
    return 0


def last_words(config: RunConfig, trained: Trained) -> list[str]:
    """Return what the last log line says, and whether the run diverged or was ended before its time."""
    words = []
    last: dict[str, float] = next((line for line in reversed(trained.history) if "loss" in line), {})
    losses = [value for key, value in last.items() if key.startswith("loop_losses/")]
    norms = [value for key, value in last.items() if key.startswith("loop_norms/")]
    if losses:
        words.append(
            f"training loss of the supervised exits {' '.join(f'{loss:.3f}' for loss in losses)}; "
            f"norm after each loop {' '.join(f'{norm:.1f}' for norm in norms)}"
        )
    if not all(math.isfinite(value) for value in losses + norms):
        words.append("the run diverged: try a lower train.learning_rate or train.clip")
    if config.train.max_steps is not None and trained.steps < config.train.max_steps:
        words.append(f"it was ended before its {config.train.max_steps} steps, by train.stop_scale")
    return words
