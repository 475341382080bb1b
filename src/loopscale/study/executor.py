"""Executor of a study's runs: it takes jobs and says when each ends; this one uses this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol, final, runtime_checkable

import torch

from loopscale.errors import InputError
from loopscale.storage import read_json

LOG_FILE = "log.txt"
FAILURE_FILE = "failure.json"


@final
@dataclass(frozen=True)
class Failure:
    """Why a job's process ended, in its own words: the log beside it may hold those of others."""

    pid: int
    why: str


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


@final
@dataclass(frozen=True)
class LocalExecutor:
    """Processes on this machine, as many at once as there are GPUs, or cores without one.

    Each process gets its share of the cores: the products of a small model are too small to be shared by threads.
    """

    processes: int

    @classmethod
    def for_machine(cls, jobs: int, processes: int | None = None) -> "LocalExecutor":
        """Return an executor for so many jobs, with the machine's own width unless told.

        Raises `InputError` for fewer than 1 process.
        """
        check_processes(processes)
        width = torch.cuda.device_count() or os.cpu_count() or 1
        return cls(max(1, min(jobs, processes or width)))

    def execute(self, jobs: Sequence[Job], tick: Callable[[], None]) -> None:
        """Run the jobs; on an interruption every process saves and stops before this returns."""
        with _ends_are_interruptions():
            self._execute(list(jobs), tick)

    def _execute(self, waiting: list[Job], tick: Callable[[], None]) -> None:
        running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
        try:
            while waiting or running:
                for place in range(self.processes):
                    if place not in running and waiting:
                        job = waiting.pop(0)
                        running[place] = job, self._start(job, place)
                for place, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        _let_go(process)
                        if process.returncode:
                            raise InputError(_failure(job, process.pid, process.returncode))
                tick()
                time.sleep(0.2)
        finally:
            for _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()
                _let_go(process)

    def _start(self, job: Job, place: int) -> subprocess.Popen[bytes]:
        with (job.folder / LOG_FILE).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "loopscale.study.worker", str(job.folder)],
                env=process_environment(place, self.processes),
                stdin=subprocess.PIPE,  # nothing is written: it closes when we end, however we end, and so does the job
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C reaches the executor alone, which asks its processes to save
            )


def check_processes(processes: int | None) -> None:
    """Raise `InputError` for fewer than 1 process; None is the machine's own width."""
    if processes is not None and processes < 1:
        raise InputError(f"--processes is {processes}: give at least 1.")


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def process_environment(place: int, processes: int) -> dict[str, str]:
    """Return the environment of one of so many processes: its share of the cores, and one of the GPUs shown to us.

    `OMP_NUM_THREADS` is followed where it is set: where others use the machine, threads that wait for each other waste
    it.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(told) if told.isdigit() and int(told) else max(1, (os.cpu_count() or 1) // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if (count := torch.cuda.device_count()) > 1:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        environment["CUDA_VISIBLE_DEVICES"] = shown.split(",")[place % count]
    return environment


@contextmanager
def _ends_are_interruptions() -> Iterator[None]:
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


def _failure(job: Job, pid: int, status: int) -> str:
    """Return why a job failed: by its own word, else by the signal that ended it or the last line of its log."""
    path = job.folder / LOG_FILE
    return f"run {job.name} failed (status {status}): {_reason(job, pid, status, path)} (whole log: {path})"


def _reason(job: Job, pid: int, status: int, log: Path) -> str:
    with suppress(InputError):
        failure = read_json(job.folder / FAILURE_FILE, Failure)
        if failure.pid == pid:
            return failure.why
    if status < 0:
        name = signal.Signals(-status).name
        return f"its process was ended by {name}" + (", as a system short of memory does" if name == "SIGKILL" else "")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"
