"""Paired timings and peak memory. Machines are noisy: rounds interleave the contestants, medians and ratios count."""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Step = Callable[[], Any]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(step: Step) -> float:
    """Time one call, work on a GPU included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def paired(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Return the median seconds of each step over rounds in which every step runs once, after one warm-up each."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_rate(precision: torch.dtype, device: str, size: int = 2048) -> float:
    """Return the machine's floating-point operations per second in one large matrix product."""
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(7))


def peak_mib(build: Callable[..., Step], *args: Any) -> float:
    """Return the peak MiB that two calls of a step add to what building it took, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (build, args))


def _peak(build: Callable[..., Step], args: tuple[Any, ...]) -> float:
    step = build(*args)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(), step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not STATUS.exists():  # not Linux: the high-water mark since the process began
        step(), step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    CLEAR.write_text("5")  # resets the high-water mark, which a child process inherits
    before = _kib("VmRSS")
    step(), step()
    return (_kib("VmHWM") - before) / 2**10


def _kib(key: str) -> int:
    """Return one line of the process's memory status, in KiB."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
