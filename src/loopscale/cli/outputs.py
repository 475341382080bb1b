"""Where a command writes: tried before the work, so that nothing is lost after it."""

from pathlib import Path
from typing import Any

from loopscale.errors import InputError
from loopscale.files import write_json


def check_file(option: str, path: str | None) -> None:
    """Raise `InputError` if a file cannot be written there."""
    if path is None:
        return
    if Path(path).is_dir():
        raise InputError(f"{option} {path} is a folder: name a file.")
    check_folder(option, str(Path(path).parent))


def check_folder(option: str, path: str | None) -> None:
    """Make a folder if it is not there; raises `InputError` if it cannot be written in."""
    if path is None:
        return
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        probe = Path(path, ".loopscale")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{option}: cannot write in {path}: {error.strerror}.") from error


def write_result(path: str | None, value: Any) -> None:
    """Write a result as JSON, if it was asked for."""
    if path is None:
        return
    try:
        write_json(Path(path), value)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error
