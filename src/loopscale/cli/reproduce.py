"""Train the paper's conditions on one corpus, measure every exit, and judge the paper's claims by the figures.

Finished runs are skipped and stopped ones go on when the same command is started again. Everything is written below
--out: one folder for each condition and seed, results.json, tables, figures and report.html.
"""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.cli.parser import Parser
from loopscale.cli.run_arguments import add_run_arguments, run_config


def add_arguments(parser: Parser) -> None:
    """Add the grid's arguments, then the run's."""
    parser.add_argument("--corpus", type=str, default=None, help="short for --data.corpus")
    parser.add_argument("--tokenizer", type=str, default=None, help="short for --data.tokenizer")
    parser.add_argument(
        "--conditions", nargs="+", default=None, help="conditions to train (all of the grid by default)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="one run of each condition per seed")
    parser.add_argument("--processes", type=int, default=None, help="runs at once (GPUs, or cores without one)")
    parser.add_argument("--out", type=str, default=None, help="folder of the study (runs/PRESET by default)")
    add_run_arguments(parser)


def run(args: Namespace) -> int:
    """Run the study."""
    from loopscale.study.reproduce import reproduce

    out = Path(args.out or f"runs/{args.preset}")
    for short in ("corpus", "tokenizer"):
        if args[short] is not None:
            args[f"data.{short}"] = args[short]
    reproduce(run_config(args, str(out)), out, args.conditions, args.seeds, args.processes)
    return 0
