"""Job of a study: one run in its folder, executed by a process of its own, and how that process ended.

A process that was ended from outside has saved, or has a checkpoint: it is started again. One that says itself why it
failed would fail again.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, final, runtime_checkable

from loopscale.errors import InputError
from loopscale.storage import read_json

WORKER = "loopscale.study.worker"
LOG_FILE = "log.txt"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
STOPPED = 75  # exit status of a process that was asked to stop and saved (EX_TEMPFAIL)
ATTEMPTS = 3  # starts of a job whose process is ended from outside


@final
@dataclass(frozen=True)
class Failure:
    """Why a job's process ended, in its own words: the log beside it may hold those of others."""

    pid: int
    why: str


@final
@dataclass(frozen=True)
class Job:
    """One run: its name, and the folder that holds its configuration and takes what it writes."""

    name: str
    folder: Path


@runtime_checkable
class Executor(Protocol):
    """Executes jobs: `python -m loopscale.study.worker FOLDER` each, somewhere."""

    def execute(self, jobs: Sequence[Job], tick: Callable[[], None]) -> None:
        """Run every job to its end, calling `tick` now and then; raises `InputError` if one fails."""
        ...


def check_processes(processes: int | None) -> None:
    """Raise `InputError` for fewer than 1 process; None is as many as there is room for."""
    if processes is not None and processes < 1:
        raise InputError(f"--processes is {processes}: give at least 1.")


def told_threads() -> int | None:
    """Return the threads of a process that `OMP_NUM_THREADS` asks for, None where it does not.

    It is followed: where others use the machine, threads that wait for each other waste it.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else None


def ended_from_outside(status: int) -> bool:
    """Return whether a process of that exit status can go on from its checkpoint: killed, or stopped and saved."""
    return status < 0 or status == STOPPED


def failed(job: Job, pid: int, status: int, where: str = "") -> InputError:
    """Return why a job failed: by its own word, else by the signal that ended it or the last line of its log."""
    path = job.folder / LOG_FILE
    reason = _reason(job, pid, status, path)
    return InputError(f"run {job.name} failed{where} (status {status}): {reason} (whole log: {path})")


def _reason(job: Job, pid: int, status: int, log: Path) -> str:
    with suppress(InputError):
        failure = read_json(job.folder / FAILURE_FILE, Failure)
        if failure.pid == pid:
            return failure.why
    if status < 0:
        name = signal.Signals(-status).name
        short = ", as a system short of memory does" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{short}, {ATTEMPTS} times"
    if status == STOPPED:
        return f"its process was asked to stop, {ATTEMPTS} times"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"


@contextmanager
def ends_are_interruptions() -> Iterator[None]:
    """Raise KeyboardInterrupt also where this process is asked to end, so that it does not leave its own behind."""
    if threading.current_thread() is not threading.main_thread():  # where signals never arrive
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no hang-up
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptions_wait() -> Iterator[None]:
    """Hold back an interruption until the block is over: what the block starts is then known to who ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before: dict[int, Any] = {}
    try:
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):  # the one that nobody else gives back is changed last
            if (number := getattr(signal, name, None)) is not None and (known := signal.getsignal(number)) is not None:
                before[number] = known
                signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in reversed(before.items()):
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
