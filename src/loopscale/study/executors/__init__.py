"""Executors of a study's runs: they take jobs and say when each has ended; what a run writes is the same under all."""

from collections.abc import Callable, Mapping

from loopscale.errors import InputError, unknown

from .job import Executor, Job, check_processes
from .local import LocalExecutor
from .ray_cluster import RayExecutor

__all__ = ["EXECUTORS", "Executor", "Job", "LocalExecutor", "RayExecutor", "executor_named"]

#: What makes an executor of a number of processes and a cluster's address.
EXECUTORS: Mapping[str, Callable[[int | None, str | None], Executor]] = {
    "local": lambda processes, address: LocalExecutor(processes),
    "ray": lambda processes, address: RayExecutor(address, processes),
}


def executor_named(name: str, processes: int | None = None, address: str | None = None) -> Executor:
    """Return an executor by its name; `processes` are the runs at once, as many as there is room for by default.

    Raises `InputError` for an unknown name, fewer than 1 process, and a cluster's address where there is no cluster.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if address is not None and name != "ray":
        raise InputError(f"--ray_address {address} is for --executor ray: give that too, or leave it out.")
    check_processes(processes)
    return EXECUTORS[name](processes, address)
