"""`loopscale report`: a study's report drawn again, or that of several studies as one."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.study import report_command


def run(args: Namespace) -> int:
    """Render the report."""
    report_command(*map(Path, args.run_dirs), out=None if args.out is None else Path(args.out), latex=args.latex)
    return 0
