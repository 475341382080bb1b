"""Executor on this machine: as many processes at once as it has GPUs, or cores without one."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch

from .job import (
    ATTEMPTS,
    LOG_FILE,
    WORKER,
    Job,
    ended_from_outside,
    ends_are_interruptions,
    failed,
    interruptions_wait,
    told_threads,
)

POLLING = 0.2  # seconds


@final
@dataclass(frozen=True)
class LocalExecutor:
    """Processes on this machine, as many at once as there are GPUs, or cores without one, unless told.

    Each process gets its share of the cores: the products of a small model are too small to be shared by threads.
    """

    processes: int | None = None

    def width(self, jobs: int) -> int:
        """Return how many of so many jobs run at once."""
        return max(1, min(jobs, self.processes or torch.cuda.device_count() or os.cpu_count() or 1))

    def execute(self, jobs: Sequence[Job], tick: Callable[[], None]) -> None:
        """Run the jobs; on an interruption every process saves and stops before this returns."""
        with ends_are_interruptions():
            self._execute(list(jobs), tick)

    def _execute(self, waiting: list[Job], tick: Callable[[], None]) -> None:
        width, starts = self.width(len(waiting)), Counter[Job]()
        running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
        try:
            while waiting or running:
                for place in range(width):
                    if place not in running and waiting:
                        job = waiting.pop(0)
                        starts[job] += 1
                        with interruptions_wait():
                            running[place] = job, _start(job, process_environment(place, width))
                for place, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        _let_go(process)
                        if ended_from_outside(process.returncode) and starts[job] < ATTEMPTS:
                            waiting.insert(0, job)
                        elif process.returncode:
                            raise failed(job, process.pid, process.returncode)
                tick()
                time.sleep(POLLING)
        finally:
            for _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()
                _let_go(process)


def _start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (job.folder / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER, str(job.folder)],
            env=environment,
            stdin=subprocess.PIPE,  # nothing is written: it closes when we end, however we end, and so does the job
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C reaches the executor alone, which asks its processes to save
        )


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def process_environment(place: int, processes: int) -> dict[str, str]:
    """Return the environment of one of so many processes: its share of the cores, and one of the GPUs shown to us."""
    threads = told_threads() or max(1, (os.cpu_count() or 1) // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if (count := torch.cuda.device_count()) > 1:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        environment["CUDA_VISIBLE_DEVICES"] = shown.split(",")[place % count]
    return environment
