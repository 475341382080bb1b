"""Train one looped model: any size, readout, recurrence and supervision, on your text or a known corpus.

Starting the same command again goes on where it was stopped. The folder holds the model and its tokenizer (load them
with transformers), run.json (resolved configuration, versions, revision, corpus hash) and training.json (log lines).
"""

from jsonargparse import Namespace
from rich.console import Console

from loopscale.cli.parser import Parser
from loopscale.cli.run_arguments import add_run_arguments, run_config
from loopscale.train import train


def add_arguments(parser: Parser) -> None:
    """Add the run's arguments and its folder."""
    add_run_arguments(parser)
    parser.add_argument("--out", type=str, default="runs/train", help="folder of the run")


def run(args: Namespace) -> int:
    """Train, and say what came out."""
    config = run_config(args, args.out)
    console = Console()
    trained = train(config)
    if trained is None:
        console.print(f"stopped and saved: the same command goes on from {config.out}", soft_wrap=True)
        return 130
    last: dict[str, float] = next((line for line in reversed(trained.history) if "loss" in line), {})
    losses = [f"{value:.3f}" for key, value in last.items() if key.startswith("loop_losses/")]
    norms = [f"{value:.1f}" for key, value in last.items() if key.startswith("loop_norms/")]
    console.print(
        f"trained {trained.steps} steps in {trained.seconds:.0f} s; the model is in {config.out}", soft_wrap=True
    )
    console.print(f"training loss of the supervised exits {' '.join(losses)}; norm after each loop {' '.join(norms)}")
    return 0
