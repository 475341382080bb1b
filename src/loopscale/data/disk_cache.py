"""Cache of what is slow to make: files and folders named by the digest of what they are made from."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from loopscale.display import duration
from loopscale.errors import InputError

logger = logging.getLogger(__name__)

PATIENCE, SAID_EVERY = 3.0, 60.0  # seconds of waiting for another process before it is said, and between two sayings
ELSEWHERE = "name another folder with cache_dir or the environment variable LOOPSCALE_CACHE"


def default_cache_dir() -> Path:
    """Return `$LOOPSCALE_CACHE`, else `loopscale` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises `InputError` where this user has no home, as in bare containers, and neither variable is set.
    """
    own, shared = os.environ.get("LOOPSCALE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else Path(shared or "~/.cache").expanduser() / "loopscale"
    except RuntimeError as error:
        raise InputError(
            "there is no home folder to keep tokens in: name a folder to cache them in with the environment variable "
            "LOOPSCALE_CACHE (for example /tmp/loopscale)."
        ) from error


def digest(*parts: str | bytes | int | None) -> str:
    """Return the hex SHA-256 of the parts, each with its length: no two lists of parts read the same."""
    return digest_of(parts)


def digest_of(parts: Iterable[str | bytes | int | None]) -> str:
    """Return the `digest` of parts that need not be in memory together."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Return `path`, letting `build` write it (a file or a folder) if it is not there yet.

    `build` writes beside it and the result is renamed into place, so a killed build leaves nothing that could
    be taken for a finished one. A second process waits for the first, where the file system has locks.

    Raises:
        InputError: the cache folder cannot be written (permissions, a full disk).
    """
    try:
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path) as alone:
            if not path.exists():
                _build(path, build, alone)
    except OSError as error:
        raise InputError(f"cannot write the cache '{path.parent}' ({error.strerror or error}): {ELSEWHERE}.") from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a path against other processes; yield False where the file system has no locks."""
    lock = FileLock(f"{path}.lock")
    try:
        _acquire(lock, path)
    except NotImplementedError:  # each process builds its own, and one of them stays
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    """Wait for a lock, and say so now and then: what another process makes may take hours."""
    begun, patience = time.monotonic(), PATIENCE
    while True:
        try:
            lock.acquire(timeout=patience)
            return
        except Timeout:
            patience = SAID_EVERY
            if os.environ.get("LOCAL_RANK", "0") == "0":
                waited = time.monotonic() - begun
                logger.warning("another process makes %s: waiting for it (%s so far)", path, duration(waited))


def _build(path: Path, build: Callable[[Path], None], alone: bool) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    for left in path.parent.glob(f"{path.name}.*partial") if alone else [partial]:
        remove(left)  # by a killed build
    try:
        build(partial)
        for file in [partial] if partial.is_file() else partial.iterdir():
            _flush(file)
        partial.replace(path)
    except Exception:
        remove(partial)
        if not path.exists():  # another process may have been quicker, where there are no locks
            raise


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
