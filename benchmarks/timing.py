"""Timings and peak memory. Machines are noisy: rounds interleave the contestants, medians and ratios count."""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopscale.system.allocator import keep_freed_memory

Step = Callable[[], Any]
CALLS, SECONDS = 2, 4.0  # of one contestant in a round, at least
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Contestant:
    """How to build a step, and whether its process keeps freed memory, as our commands do and other programs do not."""

    build: Callable[..., Step]
    args: tuple[Any, ...]
    keeps_memory: bool = True


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


def apart(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, dict[str, float]]:
    """Time contestants in processes of their own, by turns: seconds (median of all calls), peak MiB, first value.

    The peak is what the calls add to what building the step took.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(_measure, (contestant,)))
    return {
        name: {
            "seconds": statistics.median(time for one in runs for time in one["seconds"]),
            "peak_mib": statistics.median(one["peak_mib"] for one in runs),
            "first_value": runs[0]["first_value"],
        }
        for name, runs in found.items()
    }


def matmul_rate(precision: torch.dtype, device: str) -> float:
    """Return the machine's floating-point operations per second in large matrix products."""
    size, times = (2048, 1) if device == "cpu" else (8192, 10)  # long against what a launch takes
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))

    def products() -> None:
        for _ in range(times):
            a @ b

    products()
    return times * 2 * size**3 / min(seconds(products) for _ in range(7))


def shares_of_cpu_time(steps: Mapping[str, tuple[Step, float]], rounds: int) -> dict[str, float]:
    """Return the share of one thread's bf16 matrix rate that each step reaches, by turns, in CPU time.

    Each comes with its floating-point operations; the rate is that of products just before and after the step.
    """
    a, b = (torch.randn(1024, 1024).to(torch.bfloat16) for _ in range(2))

    def cpu_seconds(step: Step) -> float:
        start = time.process_time()
        step()
        return time.process_time() - start

    def rate() -> float:
        return 8 * 2 * 1024**3 / cpu_seconds(lambda: [a @ b for _ in range(8)])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shares: dict[str, list[float]] = {name: [] for name in steps}
    for step, _ in steps.values():
        step()
    for _ in range(rounds):
        for name, (step, flops) in steps.items():
            before, taken = rate(), cpu_seconds(step)
            shares[name].append(flops / taken / ((before + rate()) / 2))
    torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in shares.items()}


def live_mib(step: Step) -> float:
    """Return the peak MiB of tensors that one call has alive beyond those from before it, without the allocator's."""
    step()
    if torch.cuda.is_available():
        return _cuda_peak(step)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak / 2**20


def _measure(contestant: Contestant) -> dict[str, Any]:
    if contestant.keeps_memory:
        keep_freed_memory()
    step = contestant.build(*contestant.args)
    times: list[float] = []
    value: list[float] = []

    def run() -> None:
        value.append(float(step()))  # the first call warms up
        while len(times) < CALLS or sum(times) < SECONDS:
            times.append(seconds(step))

    peak = _peak(run)
    return {"seconds": times, "peak_mib": peak, "first_value": value[0]}


def _peak(run: Step) -> float:
    if torch.cuda.is_available():
        return _cuda_peak(run)
    if not STATUS.exists():  # not Linux: the high-water mark since the process began
        run()
        return high_water(resource.RUSAGE_SELF)
    CLEAR.write_text("5")  # resets the high-water mark, which a child process inherits
    before = kib("VmRSS")
    run()
    return (kib("VmHWM") - before) / 2**10


def high_water(who: int) -> float:
    """Return the most MiB that this process, or the largest of those it started, had resident."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _cuda_peak(run: Step) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def kib(key: str, status: Path = STATUS) -> int:
    """Return one line of a process's memory status, in KiB."""
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
