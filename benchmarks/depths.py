"""Depths drawn anew at every step against their fixed mean, and the memory of a gradient through the last loops."""

import itertools
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.shapes import Shape, device, train_step
from benchmarks.timing import Step, live_mib, seconds
from loopscale.train import preset_run, train

DRAWN, MEAN = range(2, 7), 4  # every depth of these is as likely as any other
DEEP, WITH_GRADIENT = (4, 8, 16, 32), 4


def drawing(shape: Shape, rounds: int, compiled: bool) -> dict[str, Any]:
    """Return the time of steps whose depth is drawn over that of steps of their mean depth.

    Warm: in turns of ten steps, after one of every depth. Cold, where `compiled`: all steps from the first on, in which
    a graph would be compiled for a depth that is new.
    """
    rows = []
    for kind in ("ours", *(["compiled"] if compiled else [])):
        steps = {
            "fixed": train_step(shape, kind, lambda: {"num_loops": MEAN}),
            "drawn": train_step(shape, kind, drawn()),
        }
        cold = {name: _turn(step) for name, step in steps.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                times[name].append(_turn(step))
        fixed, other = (statistics.median(times[name]) for name in ("fixed", "drawn"))
        row = {"step": kind, "fixed_ms": 1e2 * fixed, "drawn_ms": 1e2 * other, "drawn_over_fixed": other / fixed}
        rows.append({**row, "first_ten_steps_over_fixed": cold["drawn"] / cold["fixed"]})
    return {"shape": shape.name, "rows": rows}


def drawing_in_training(rounds: int, steps: int = 60) -> dict[str, Any]:
    """Return the same for whole runs of the `laptop` preset in the Trainer, log lines included."""
    depths: dict[str, Any] = {
        "fixed": "fixed",
        "drawn": {"kind": "uniform", "low": DRAWN.start, "high": DRAWN.stop - 1},
    }
    times: dict[str, list[float]] = {name: [] for name in depths}
    loops = 0.0
    for _ in range(rounds):
        for name, depth in depths.items():
            with tempfile.TemporaryDirectory() as folder:
                run = preset_run("laptop")
                settings = replace(run.train, max_steps=steps, save_every=10 * steps, depth=depth)
                config = replace(run, train=settings, out=str(Path(folder, "run")))
                trained = train(config, quiet=True)
            assert trained is not None
            loops = statistics.mean(config.schedule.depth(step, steps).loops for step in range(1, steps + 1))
            times[name].append(trained.seconds / loops)
    fixed, other = (1e3 * statistics.median(times[name]) / steps for name in ("fixed", "drawn"))
    row = {
        "fixed_ms_per_loop": fixed,
        "drawn_ms_per_loop": other,
        "drawn_over_fixed": other / fixed,
        "mean_loops": loops,
    }
    return {"shape": Shape("laptop", 8, 128).name, "rows": [row]}


def truncation(shape: Shape) -> dict[str, Any]:
    """Return the memory alive in a step by its loops: all with gradient, and the last few alone."""
    rows = []
    for K in DEEP:
        row: dict[str, Any] = {"loops": K}
        for name, asked in (("whole", {}), ("truncated", {"gradient_loops": WITH_GRADIENT})):
            for supervision in ("terminal", "per_loop"):
                step = train_step(shape, "ours", _always(num_loops=K, **asked), supervision=supervision)
                row[f"{supervision}_{name}_mib"] = live_mib(step)
        rows.append(row)
    return {"shape": shape.name, "with_gradient": WITH_GRADIENT, "device": device(), "rows": rows}


def drawn() -> Callable[[], Mapping[str, int]]:
    """Return what asks for every depth once in each five steps, in an order that is drawn."""
    source = random.Random(0)
    depths = itertools.chain.from_iterable(source.sample(DRAWN, len(DRAWN)) for _ in itertools.count())
    return lambda: {"num_loops": next(depths)}


def _always(**asked: int) -> Callable[[], Mapping[str, int]]:
    return lambda: asked


def _turn(step: Step) -> float:
    """Time ten steps: every drawn depth twice."""
    return sum(seconds(step) for _ in range(2 * len(DRAWN)))
