"""Executor on a Ray cluster: each run is a task with its share of cores and GPUs, on whatever machine has them.

Ray starts a task anew where its worker or its machine dies, and the run goes on from its checkpoint. All machines see
the study's folder under one path: checkpoints, log and results lie there, as if one machine had made them.
"""

import inspect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from loopscale.errors import InputError
from loopscale.storage import resolved

from . import ray_task
from .job import (
    ATTEMPTS,
    LOG_FILE,
    RESULT_FILE,
    STOPPED,
    WORKER,
    Job,
    ends_are_interruptions,
    failed,
    told_threads,
)

POLLING = 0.2  # seconds
PATIENCE = 120.0  # seconds for a run to save, and for the lock of one whose machine is gone to be free
LOST_MACHINES = 100  # starts of one run: machines that are lent for hours go often
MARK_FILE = ".seen-by-all"  # while the study runs
FOLLOWED = ("LOOPSCALE_", "HF_")  # beginnings of the variables that runs follow on every machine


@final
@dataclass(frozen=True)
class RayExecutor:
    """Runs on the cluster at `address`, `RAY_ADDRESS` by default; where there is neither, Ray starts on this machine.

    `processes` limits the runs at once; by default as many run as there is room for, also on machines that come later.
    """

    address: str | None = None
    processes: int | None = None

    def execute(self, jobs: Sequence[Job], tick: Callable[[], None]) -> None:
        """Run the jobs; on an interruption every run saves and stops before this returns."""
        if not jobs:
            return
        with ends_are_interruptions(), _connected(self.address) as ray, ends_are_interruptions():  # Ray listens too
            try:
                with _marked(jobs[0].folder) as mark:
                    _require_shared(ray, mark)
                    self._execute(ray, list(jobs), tick, mark)
            except ray.exceptions.RayError as error:
                said = str(error).strip().splitlines()
                raise InputError(
                    f"the Ray cluster failed ({type(error).__name__}: {said[0] if said else 'no reason given'}): the "
                    "same command goes on from what was saved."
                ) from error

    def _execute(self, ray: Any, waiting: list[Job], tick: Callable[[], None], mark: ray_task.Mark) -> None:
        nodes = [(int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0))) for n in alive(ray)]
        cores, gpus = share(nodes, min(len(waiting), self.processes or len(waiting)))
        here = inspect.unwrap(ray_task.run_here)  # tests wrap it in what cannot be sent
        task = ray.remote(here).options(num_cpus=cores, num_gpus=gpus, max_retries=LOST_MACHINES)
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (self.processes or len(waiting) + len(running)):
                    job = waiting.pop(0)
                    running[task.remote(**_asked(job, cores, mark))] = job
                for ended in ray.wait(list(running), timeout=POLLING)[0]:
                    _judge(running.pop(ended), ray_task.Ended(*ray.get(ended)))
                tick()
        finally:
            for going in running:
                ray.cancel(going)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)


def share(nodes: Sequence[tuple[int, int]], wanted: int) -> tuple[int, int]:
    """Return cores and GPUs of each run, so that the wanted number run at once where there is room for them.

    Where there are GPUs each run has one. `nodes` are the cores and GPUs of every machine. Raises `InputError` where
    no machine has a core.
    """
    most, gpus = max((cores for cores, _ in nodes), default=0), sum(gpus for _, gpus in nodes)
    if most < 1:
        raise InputError("the Ray cluster has no cores to run on: start its nodes with --num-cpus of at least 1.")

    def at_once(cores: int) -> int:
        return sum(min(there // cores, own) if gpus else there // cores for there, own in nodes)

    if not (room := at_once(1)):
        raise InputError(
            "no machine of the Ray cluster has both a core and a GPU: start the nodes with GPUs with --num-cpus of at "
            "least 1."
        )
    wanted = min(wanted, room)
    return next(cores for cores in range(most, 0, -1) if at_once(cores) >= wanted), min(gpus, 1)


def alive(ray: Any) -> list[dict[str, Any]]:
    """Return the cluster's machines that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def _marked(folder: Path) -> Iterator[ray_task.Mark]:
    """Yield a mark in a folder that only who shares it can know."""
    path, token = resolved(folder) / MARK_FILE, uuid4().hex
    path.write_text(token, encoding="utf-8")
    try:
        yield ray_task.Mark(str(path), token, str(Path.cwd()))
    finally:
        path.unlink(missing_ok=True)


def _require_shared(ray: Any, mark: ray_task.Mark) -> None:
    """Raise `InputError` where a machine that could run something does not see the study, before anything runs."""
    on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(inspect.unwrap(ray_task.seen_here))
    nodes = [node["NodeID"] for node in alive(ray) if node["Resources"].get("CPU", 0) >= 1]
    looks = [look.options(num_cpus=0, scheduling_strategy=on(node, soft=False)).remote(tuple(mark)) for node in nodes]
    answers = []
    for told in ray.wait(looks, num_returns=len(looks), timeout=PATIENCE)[0] if looks else []:
        with suppress(ray.exceptions.RayError):  # it is gone; who takes its runs looks again
            answers.append(ray.get(told))
    if blind := sorted({host for seen, host in answers if not seen}):
        raise _not_shared(", ".join(blind), Path(mark.path).parent)


def _not_shared(hosts: str, folder: Path) -> InputError:
    return InputError(
        f"machine {hosts} of the Ray cluster does not share {folder} with this one: put --out on a file system that "
        "all machines see under one path, or run a study on each and merge them (loopscale report)."
    )


def _asked(job: Job, cores: int, mark: ray_task.Mark) -> dict[str, Any]:
    folder = resolved(job.folder)
    followed = {name: value for name, value in os.environ.items() if name.startswith(FOLLOWED)}
    return {
        "words": ["-m", WORKER, str(folder), str(PATIENCE)],
        "mark": tuple(mark),
        "log": str(folder / LOG_FILE),
        "environment": {
            **followed,
            "OMP_NUM_THREADS": str(told_threads() or cores),
            "TOKENIZERS_PARALLELISM": "false",
        },
        "attempts": ATTEMPTS,
        "stopped": STOPPED,
    }


def _judge(job: Job, ended: ray_task.Ended) -> None:
    if ended.status:
        raise failed(job, ended.pid, ended.status, f" on {ended.host}")
    if ended.status is None or not _appears(job.folder / RESULT_FILE):
        raise _not_shared(ended.host, resolved(job.folder))


def _appears(path: Path) -> bool:
    """Return whether a file that another machine has written is there: network file systems show it late."""
    end = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < end:
        time.sleep(POLLING)
    return path.exists()


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected; what was started here ends here. Raises `InputError` where it is missing or not there."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray: pip install 'loopscale[ray]'.") from error
    if ray.is_initialized():  # the caller's own
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    ray.cloudpickle.register_pickle_by_value(ray_task)
    try:
        options = {"include_dashboard": False} if where == "local" else {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        ray.init(where, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"no Ray cluster answers at {where} ({said}): start one with 'ray start --head', or leave out "
            "--ray_address to run on this machine."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(ray_task)
