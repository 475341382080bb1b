"""Destination of what is written as a folder: it appears whole, or what was there before stays."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from loopscale.errors import InputError
from loopscale.storage import check_name, check_writable, is_of_the_dead, resolved


def check_destination(source: str, destination: Path, overwrite: bool) -> None:
    """Raise `InputError` for a destination that is `source` or where one is, or that exists unless `overwrite`."""
    check_name("writing to", destination)
    check_writable("writing to", destination.parent)
    if Path.cwd().is_relative_to(resolved(destination)):
        raise InputError(f"'{destination}' is the folder you are in, or above it: name another one to write to.")
    if destination.exists() and not overwrite:
        raise InputError(
            f"'{destination}' exists: name another folder, or pass --overwrite (overwrite=True) to replace it."
        )
    if Path(source).exists() and destination.exists() and Path(source).samefile(destination):
        raise InputError(f"'{source}' is source and destination: name another folder to write to.")


@contextmanager
def written_whole(destination: Path) -> Iterator[Path]:
    """Yield a folder to write into, which takes the destination's place when the block ends without an error.

    Raises `InputError` where it cannot be written.
    """
    partial = destination.with_name(f".{destination.name}.partial.{os.getpid()}")
    try:
        for left in destination.parent.glob(f".{escape(destination.name)}.partial.*"):  # of killed processes
            if is_of_the_dead(left) or left == partial:
                shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _replace(destination, partial)
    except OSError as error:
        raise InputError(f"cannot write '{destination}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(destination: Path, whole: Path) -> None:
    """Put `whole` in the place of `destination`, whose old content is there until that moment."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.is_dir():
        destination.replace(old)
    else:
        destination.unlink(missing_ok=True)
    whole.replace(destination)
    shutil.rmtree(old, ignore_errors=True)
