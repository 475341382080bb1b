"""Write the tables, figures and page of a study anew from its results.json, and print its claims."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Add the study's folder."""
    parser.add_argument("run_dir", type=str, help="folder that `loopscale reproduce` wrote")


def run(args: Namespace) -> int:
    """Render the report."""
    from loopscale.study import report_command

    report_command(Path(args.run_dir))
    return 0
