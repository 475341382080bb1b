"""`loopscale report`: a study's report, drawn again."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.study import report_command


def run(args: Namespace) -> int:
    """Render the report."""
    report_command(Path(args.run_dir))
    return 0
