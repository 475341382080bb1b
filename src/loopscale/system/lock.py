"""Lock of a folder: one process at a time works in it, and who that is can be told.

The system's lock goes with the process that holds it, however that ends. The owner's word beside it holds where the
lock's file was removed meanwhile, or where a file system has no locks.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import psutil
from filelock import FileLock, Timeout

from loopscale.errors import InputError
from loopscale.storage import read_json, write_json
from loopscale.system.manifest import require_place

LOCK_FILE = ".lock"
OWNER_FILE = ".owner.json"
SAME_MOMENT = 1.0  # seconds: a process's beginning is worked out from the system's, which is corrected now and then
PATIENCE = 0.5  # seconds that an owner has to say who it is


@final
@dataclass(frozen=True)
class Owner:
    """The process that works in a folder, by its number, its beginning (seconds since 1970) and its machine."""

    pid: int
    began: float
    host: str | None = None

    @classmethod
    def this_process(cls) -> "Owner":
        """Return the owner that this process is."""
        return cls(os.getpid(), psutil.Process().create_time(), socket.gethostname())

    @property
    def is_there(self) -> bool:
        """Whether that process still runs. One of another machine is taken for gone: the system's lock says more."""
        try:
            here = self.host in (None, socket.gethostname())
            return here and abs(psutil.Process(self.pid).create_time() - self.began) < SAME_MOMENT
        except (psutil.Error, ValueError):
            return False


@contextmanager
def only_one(place: Path, what: str, remedy: str) -> Iterator[None]:
    """Hold `place`, a folder that is made if need be, against other processes; what is read meanwhile stays so.

    Raises `InputError` where another process has it: that it is doing `what`, its number, and the `remedy`.
    """
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place.parent} cannot be written in ({error.strerror}): choose another folder.") from error
    lock, owner = FileLock(place / LOCK_FILE, timeout=0), place / OWNER_FILE
    with suppress(NotImplementedError, OSError):  # a file system without locks: what is left is the owner's word
        try:
            lock.acquire()
        except Timeout:
            raise _in_use(what, _patiently(owner), remedy) from None
    other = _said(owner)
    if other is not None and other.pid != os.getpid() and other.is_there:  # the lock's file was removed meanwhile
        lock.release()
        raise _in_use(what, other, remedy)
    write_json(owner, Owner.this_process())
    try:
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        with suppress(OSError):
            if not any(path.name != LOCK_FILE for path in place.iterdir()):  # it was made for this alone
                shutil.rmtree(place)
            for folder in made[1:]:
                folder.rmdir()  # if nothing was put there meanwhile
        lock.release()


def require_held(place: Path) -> None:
    """Raise `InputError` where a place that `only_one` holds is gone, or another process has taken it meanwhile."""
    require_place(place)
    owner = _said(place / OWNER_FILE)
    if owner is None:
        write_json(place / OWNER_FILE, Owner.this_process())
    elif owner.pid != os.getpid():
        raise InputError(
            f"process {owner.pid} has taken {place} meanwhile, since the files of its lock were removed: nothing more "
            "is written there by this one; leave such files alone."
        )


def _said(owner: Path) -> Owner | None:
    try:
        return read_json(owner, Owner)
    except InputError:
        return None


def _patiently(owner: Path) -> Owner | None:
    """Return the owner, who may have taken the lock a moment ago and not have said so yet."""
    end = time.monotonic() + PATIENCE
    while (said := _said(owner)) is None and time.monotonic() < end:
        time.sleep(0.02)
    return said


def _in_use(what: str, owner: Owner | None, remedy: str) -> InputError:
    on = f" on {owner.host}" if owner is not None and owner.host not in (None, socket.gethostname()) else ""
    who = "" if owner is None else f" (process {owner.pid}{on})"
    return InputError(f"another process is {what}{who}: {remedy}.")
