"""Places to write to: looked at before the work, so that nothing is lost to a name at its end."""

import os
import stat
from pathlib import Path

from loopscale.errors import InputError

LONGEST = 230  # bytes of a name: file systems take 255, and what is being written has a longer one until it is whole


def check_writable(option: str, folder: Path) -> None:
    """Raise `InputError`, naming the option, where no such folder can be made or written in. Makes nothing."""
    check_name(option, folder)
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:
        raise InputError(
            f"{option} {folder} cannot be looked at ({error.strerror or error}), choose another."
        ) from error
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        what = "cannot be written in" if nearest.is_dir() else "is a file"
        raise InputError(f"{option} {folder}: {nearest} {what}, choose another folder.")


def resolved(path: Path) -> Path:
    """Return the place that a path leads to. One that leads to itself stays as it is: pathlib raises, or does not."""
    return Path(os.path.realpath(path))


def is_text(text: str) -> bool:
    """Return whether UTF-8 can hold a text: half of a surrogate pair, as in a name of other bytes, it cannot."""
    return text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text)


def check_name(option: str, place: Path) -> None:
    """Raise `InputError`, naming the option, for a name to write to that not every library takes."""
    if "\0" in str(place) or not is_text(str(place)):
        raise InputError(f"{option} {place} is a name with bytes that are not UTF-8, or NUL: choose another.")
    longest = max((os.fsencode(part) for part in place.parts), key=len, default=b"")
    if len(longest) > LONGEST:
        raise InputError(
            f"{option} {os.fsdecode(longest[:20])}… is a name of {len(longest)} bytes, and {LONGEST} are the most: "
            "choose a shorter one."
        )


def kind_of(path: Path) -> str:
    """Return what stands under a path: `file`, `folder`, or in words what else."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link to nothing" if path.is_symlink() else "unreadable"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def require_no_stream(path: Path) -> None:
    """Raise `InputError` for a pipe or a device: it would be waited for, or read without an end."""
    if (kind := kind_of(path)) in ("a pipe", "a socket", "a device"):
        raise InputError(f"{path} is {kind}, not a file: write it to a file and name that.")
