"""Where a command writes: looked at before the work, so that nothing is lost after it."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.errors import InputError
from loopscale.storage import check_writable


def check_outputs(args: Namespace, *folders: str) -> None:
    """Raise `InputError` if --json or one of the options that name `folders` cannot be written to."""
    if args.json is not None:
        if Path(args.json).is_dir():
            raise InputError(f"--json {args.json} is a folder: name a file.")
        check_writable("--json", Path(args.json).parent)
    for name in folders:
        if args[name] is not None:
            check_writable(f"--{name}", Path(args[name]))
