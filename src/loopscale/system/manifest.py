"""Manifest of a folder of weights: sizes and SHA-256 of its files, so that damage is told before anything is loaded.

A checkpoint is resumed from, and a model measured, for days after it was written: a truncated, flipped or swapped file
would give other numbers in silence.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from loopscale.errors import InputError
from loopscale.storage import read_json, write_json

MANIFEST = "manifest.json"
OF_WRITING = ("PytorchStreamWriter", "No space left", "unexpected pos", "iostream error")
UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # file systems that cannot wait for the disk


@final
@dataclass(frozen=True)
class Entry:
    """One file."""

    bytes: int
    sha256: str


@final
@dataclass(frozen=True)
class Manifest:
    """The files of a folder, and the run that wrote them."""

    files: Mapping[str, Entry]
    run: str | None = None


def write_manifest(folder: Path, run: str | None = None, names: list[str] | None = None) -> None:
    """Write the manifest of a folder's files (all, or those named), once each is on the disk."""
    paths = [folder / name for name in names] if names else [p for p in sorted(folder.rglob("*")) if p.is_file()]
    files = {}
    for path in paths:
        if path.name != MANIFEST:
            _sync(path)
            files[path.relative_to(folder).as_posix()] = Entry(path.stat().st_size, _sha256(path))
    write_json(folder / MANIFEST, Manifest(files, run))


def damage(folder: Path, run: str | None = None) -> str | None:
    """Return what is wrong with a folder in words, None where it is as it was written or has no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_json(path, Manifest)
    except InputError:
        return f"is damaged in {MANIFEST}"
    if run is not None and manifest.run is not None and manifest.run != run:
        return "is of another run"
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        return f"lacks {', '.join(missing)}"
    try:
        changed = [name for name, entry in manifest.files.items() if not _is(folder / name, entry)]
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return f"is damaged in {', '.join(changed)}" if changed else None


def _is(path: Path, entry: Entry) -> bool:
    return path.stat().st_size == entry.bytes and _sha256(path) == entry.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file is on the disk. Opened for writing: Windows flushes no other."""
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in UNSYNCED:
                raise


def require_place(folder: Path) -> None:
    """Raise `InputError` where a folder that was written into is gone: half of a run must not begin elsewhere."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is gone since the run began (renamed, removed, or its disk was taken away): bring it back, and "
            "the same command goes on from what was saved there."
        )


@contextmanager
def told_when_full(folder: Path, what: str) -> Iterator[None]:
    """Raise `InputError` where writing fails because of the place, not of the data: full, gone, read-only."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # torch's and safetensors' own errors of writing carry no number
        own = type(error).__name__ == "SafetensorError" or any(words in str(error) for words in OF_WRITING)
        if not isinstance(error, OSError) and not own:
            raise
        reason = getattr(error, "strerror", None) or ("there is no room" if own else error)
        raise InputError(
            f"{what} could not be written in {folder} ({reason}): what was saved before is whole, and the same command "
            "goes on from it once there is room."
        ) from error
