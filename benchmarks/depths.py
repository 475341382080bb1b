"""Depths drawn anew at every step against their fixed mean, and the memory of a gradient through the last loops."""

import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.shapes import Shape, device, train_step
from benchmarks.timing import Step, live_mib, seconds
from loopscale.train import preset_run, train

DRAWN, MEAN = range(2, 7), 4  # every depth of these is as likely as any other
CYCLE = 2 * len(DRAWN)
DEEP, WITH_GRADIENT = (4, 8, 16, 32), 4


def drawing(shape: Shape, rounds: int, compiled: bool) -> dict[str, Any]:
    """Return the time of steps whose depth is drawn over that of steps of their mean depth, step by step by turns.

    `cpu` is what the process computed, whatever else the machine did. Ten steps of each come before.
    """
    rows = []
    for kind in ("ours", *(["compiled"] if compiled else [])):
        steps = {"fixed": train_step(shape, kind, _always(num_loops=MEAN)), "drawn": train_step(shape, kind, drawn())}
        _cycle(steps)
        cycles = [_cycle(steps) for _ in range(rounds)]
        row: dict[str, Any] = {"step": kind}
        for i, clock in enumerate(("wall", "cpu")):
            fixed, other = (statistics.median(cycle[name][i] for cycle in cycles) for name in ("fixed", "drawn"))
            row |= {f"{clock}_fixed_ms": 1e3 * fixed, f"{clock}_drawn_ms": 1e3 * other}
            row |= {f"{clock}_drawn_over_fixed": statistics.median(c["drawn"][i] / c["fixed"][i] for c in cycles)}
        rows.append(row)
    return {"shape": shape.name, "rounds": rounds, "rows": rows}


def drawing_in_training(rounds: int, steps: int = 60) -> dict[str, Any]:
    """Return the same for whole runs of the `laptop` preset in the Trainer, log lines included, by their loops."""
    depths: dict[str, Any] = {
        "fixed": "fixed",
        "drawn": {"kind": "uniform", "low": DRAWN.start, "high": DRAWN.stop - 1},
    }
    times: dict[str, list[float]] = {name: [] for name in depths}
    loops = {}
    for _ in range(rounds):
        for name, depth in depths.items():
            with tempfile.TemporaryDirectory() as folder:
                run = preset_run("laptop")
                settings = replace(run.train, max_steps=steps, save_every=10 * steps, depth=depth)
                config = replace(run, train=settings, out=str(Path(folder, "run")))
                loops[name] = sum(config.schedule.depth(step, steps).loops for step in range(1, steps + 1))
                clock = Clock()
                train(config, [clock], quiet=True)
                times[name].append(clock.seconds / loops[name])
    fixed, other = (1e3 * statistics.median(times[name]) for name in ("fixed", "drawn"))
    row = {"cpu_fixed_ms_per_loop": fixed, "cpu_drawn_ms_per_loop": other, "cpu_drawn_over_fixed": other / fixed}
    return {
        "shape": Shape("laptop", 8, 128).name,
        "rounds": rounds,
        "rows": [{**row, "mean_loops": loops["drawn"] / steps}],
    }


class Clock(TrainerCallback):
    """CPU seconds of a training, without what comes before and after."""

    seconds = 0.0

    def on_train_begin(self, *args: Any, **_: Any) -> None:
        self.seconds -= time.process_time()

    def on_train_end(self, *args: Any, **_: Any) -> None:
        self.seconds += time.process_time()


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


def _cycle(steps: Mapping[str, Step]) -> dict[str, tuple[float, float]]:
    """Return wall and CPU seconds of a step of each, meaned over ten by turns: every drawn depth twice."""
    times = {name: [0.0, 0.0] for name in steps}
    for _ in range(CYCLE):
        for name, step in steps.items():
            began = time.process_time()
            times[name][0] += seconds(step) / CYCLE
            times[name][1] += (time.process_time() - began) / CYCLE
    return {name: (wall, cpu) for name, (wall, cpu) in times.items()}
