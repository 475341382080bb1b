"""Training steps: against plain, against the machine's matrix rate, by number of loops, and inside the Trainer."""

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.shapes import Shape, device, train_flops, train_step
from benchmarks.timing import matmul_rate, paired, peak_mib
from loopscale.train import preset_run, train

LOOPS = (1, 2, 4, 8, 16)


def against_plain(shape: Shape, rounds: int, compiled: bool) -> dict[str, Any]:
    """Return seconds, tokens per second, share of the matrix rate and peak memory of each kind of step."""
    kinds = ["plain", "ours", "saving", *(["compiled"] if compiled else [])]
    steps = {kind: train_step(shape, kind) for kind in kinds}
    losses = {kind: float(step()) for kind, step in steps.items() if kind != "saving"}
    times = paired(steps, rounds)
    rate = matmul_rate(torch.bfloat16, device())
    rows = {
        kind: {
            "seconds": time_,
            "tokens_per_second": shape.batch * shape.seq / time_,
            "times_plain": times["plain"] / time_,
            "share_of_bf16_rate": train_flops(shape) / time_ / rate,
            "first_loss": losses.get(kind),
        }
        for kind, time_ in times.items()
    }
    for kind in ("plain", "ours", "saving"):
        rows[kind]["peak_mib"] = peak_mib(train_step, shape, kind)
    return {"shape": shape.name, "bf16_rate": rate, "float32_rate": matmul_rate(torch.float32, device()), "rows": rows}


def growth(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return step time and peak memory by number of loops, and the exponent of the time's growth."""
    times = {K: paired({"step": train_step(shape, "ours", K)}, rounds)["step"] for K in LOOPS}
    memory = {K: peak_mib(train_step, shape, "saving", K) for K in LOOPS}
    # what does not grow with K (optimizer, embedding) is taken out by the differences from one loop
    points = [(math.log(K - 1), math.log(times[K] - times[1])) for K in LOOPS[1:] if times[K] > times[1]]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return {"shape": shape.name, "seconds": times, "exponent": slope, "saving_peak_mib": memory}


def trainer_overhead(steps: int = 100) -> dict[str, float]:
    """Return the time per step of a `laptop` run in the Trainer over that of a bare loop, logging included."""
    bare = train_step(Shape("laptop", 8, 128), "ours")
    bare()
    with tempfile.TemporaryDirectory() as folder:
        run = preset_run("laptop")
        short = replace(run, train=replace(run.train, max_steps=steps, save_every=10 * steps), out=f"{folder}/warm")
        trained = train(replace(short, out=str(Path(folder, "run"))), quiet=True)
    start = time.perf_counter()
    for _ in range(steps):
        bare()
    alone = time.perf_counter() - start
    assert trained is not None
    return {
        "bare_ms": 1e3 * alone / steps,
        "trainer_ms": 1e3 * trained.seconds / steps,
        "ratio": trained.seconds / alone,
    }
