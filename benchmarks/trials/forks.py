"""Forks of a process that has imported everything: a trial in a process of its own that costs a second, not ten."""

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import psutil

from loopscale.display.text import inert
from loopscale.errors import InputError

REFUSED, TRACEBACK = 2, 70
MEMORY = 8 * 2**30  # bytes a fork may take beside what is mapped: more fails there, not on the whole machine


@final
@dataclass(frozen=True)
class Ended:
    """How a fork ended: its status (negative: the signal), all it printed, and its seconds."""

    status: int
    said: str
    seconds: float

    @property
    def is_told(self) -> bool:
        """Whether it did what it should or refused in one sentence, without a traceback or a code of a terminal."""
        plain = "Traceback" not in self.said and "\x1b" not in self.said
        return plain and (self.status in (0, 1, 3) or self.is_refused)

    @property
    def is_refused(self) -> bool:
        """Whether it refused in a sentence."""
        last = self.said.strip().splitlines()[-1] if self.said.strip() else ""
        return self.status == REFUSED and "Traceback" not in self.said and last.endswith((".", ")", "?"))


def forked(
    act: Callable[[], int | None],
    log: Path,
    limit: float = 600,
    kill_after: float | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Ended:
    """Run `act` in a fork, which ends with the status it returns; killed after so many seconds, or at the limit."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _act(act, log)
    end = began + (limit if kill_after is None else kill_after)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.005)
    said = log.read_text(errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(ended[1]), said, time.monotonic() - began)


def _act(act: Callable[[], int | None], log: Path) -> None:
    status = TRACEBACK
    try:
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        file, yes = log.open("w"), log.with_suffix(".yes")
        yes.write_text("y\n" * 100)  # for whoever asks
        os.dup2(os.open(yes, os.O_RDONLY), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            status = act() or 0
        except InputError as error:
            os.write(2, f"{inert(error)}\n".encode(errors="replace"))
            status = REFUSED
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(status)
