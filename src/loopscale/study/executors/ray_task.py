"""What one machine of a Ray cluster does for one job: start its process, wait, and start it again if it was killed.

Ray sends this module to the machines by value, so it knows nothing but the standard library: a Ray worker that only
waits needs no torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LATE = 10.0  # seconds until a network file system shows what another machine has written


class Mark(NamedTuple):
    """A file in the first run's folder, what it holds for this study alone, and the working folder: all may be seen."""

    path: str
    token: str
    place: str


class Ended(NamedTuple):
    """How a job's process ended, its number, and the machine; no status where the machine lacks the study's folder."""

    status: int | None
    pid: int
    host: str


def seen_here(mark: tuple[str, str, str]) -> tuple[bool, str]:
    """Return whether this machine sees the study's files and its working folder, and its name."""
    (path, token, place), end = mark, time.monotonic() + LATE
    while True:
        try:
            seen = Path(place).is_dir() and Path(path).read_text(encoding="utf-8") == token
        except OSError:
            seen = False
        if seen or time.monotonic() > end:
            return seen, socket.gethostname()
        time.sleep(0.2)


def run_here(
    words: Sequence[str],
    mark: tuple[str, str, str],
    log: str,
    environment: Mapping[str, str],
    attempts: int,
    stopped: int,
) -> tuple[int | None, int, str]:
    """Run `python WORDS` in a process that outlives neither this one nor a cancellation; return an `Ended`.

    Args:
        words: the command after the interpreter.
        mark: that this machine has to see; relative paths of the run start from its working folder.
        log: takes what the process prints.
        environment: variables beside those of this machine.
        attempts: how often to start it while it is ended from outside.
        stopped: the exit status of a process that was asked to stop.
    """
    seen, host = seen_here(mark)
    if not seen:
        return None, 0, host
    _, _, place = mark
    status, pid = 0, 0
    for _ in range(attempts):
        process = None
        try:
            with Path(log).open("ab") as file:
                process = subprocess.Popen(
                    [sys.executable, *words],
                    cwd=place,
                    env={**os.environ, **environment},
                    stdin=subprocess.PIPE,  # it closes when this process ends, however it ends, and so does the job
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            while process.poll() is None:
                time.sleep(0.2)  # a cancellation is noticed between two steps of Python, never in a long wait
            status, pid = process.returncode, process.pid
        finally:
            if process is not None:
                _let_go(process)
        if status >= 0 and status != stopped:
            break
    return status, pid, host


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """End a process that a cancellation left running, and close its pipe."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
