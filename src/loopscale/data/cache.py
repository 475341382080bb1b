"""What is slow to make is made once: files and folders named by the digest of what they are made from."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from loopscale.errors import InputError


def default_cache_dir() -> Path:
    """Return `$LOOPSCALE_CACHE`, else `loopscale` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("LOOPSCALE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "loopscale"


def digest(*parts: str | bytes | int | None) -> str:
    """Return the hex SHA-256 of the parts, each with its length: no two lists of parts read the same."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Return `path`, letting `build` write it (a file or a folder) if it is not there yet.

    `build` writes beside it and the result is renamed into place, so a killed build leaves nothing that could
    be taken for a finished one. A second process waits for the first.

    Raises:
        InputError: the cache folder cannot be written (permissions, a full disk).
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _build(path, build)
    except OSError as error:
        raise InputError(
            f"cannot write the cache '{path.parent}' ({error.strerror or error}): name another folder with "
            "cache_dir or the environment variable LOOPSCALE_CACHE."
        ) from error
    return path


def _build(path: Path, build: Callable[[Path], None]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    remove(partial)  # what a killed build left
    build(partial)
    for file in [partial] if partial.is_file() else partial.iterdir():
        _flush(file)
    partial.replace(path)


def _flush(file: Path) -> None:
    """Wait until the file is on disk: a rename can outlive a power cut that the content does not."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
