"""Training steps against plain and against the machine's matrix rate, and the Trainer against a bare loop."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.shapes import Shape, device, train_flops, train_step
from benchmarks.timing import Contestant, apart, matmul_rate, seconds, shares_of_cpu_time
from loopscale.train import preset_run, train


def against_plain(shape: Shape, rounds: int, compiled: bool) -> dict[str, Any]:
    """Return time, tokens per second, share of the matrix rate and peak memory of each kind of step.

    `plain` runs as it would from a script; the others as our commands run them, which keep freed memory.
    """
    kinds = ["plain", "ours", "saving", *(["compiled"] if compiled else [])]
    steps = {kind: Contestant(train_step, (shape, kind), keeps_memory=kind != "plain") for kind in kinds}
    steps["plain, memory kept"] = Contestant(train_step, (shape, "plain"))
    found = apart(steps, rounds)
    rate, wide_rate = (matmul_rate(precision, device()) for precision in (torch.bfloat16, torch.float32))
    rows = [
        {
            "step": kind,
            "seconds": one["seconds"],
            "tokens_per_second": shape.batch * shape.seq / one["seconds"],
            "times_plain": found["plain"]["seconds"] / one["seconds"],
            "share_of_bf16_rate": train_flops(shape) / one["seconds"] / rate,
            "peak_mib": one["peak_mib"],
            "first_loss": one["first_value"],
        }
        for kind, one in found.items()
    ]
    limit = found["plain"]["seconds"] * rate / train_flops(shape)
    return {
        "shape": shape.name,
        "bf16_rate": rate,
        "float32_rate": wide_rate,
        "times_plain_at_the_bf16_rate": limit,
        "rows": rows,
    }


AROUND = {"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear", "coda_input": "readout"}


def around_the_loops(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return time and share of the matrix rate of a step with layers before and behind the loops, and without them."""
    kinds: dict[str, dict[str, Any]] = {"loops alone": {}, "prelude, loops, coda": AROUND}
    steps = {kind: Contestant(partial(train_step, **fields), (shape,)) for kind, fields in kinds.items()}
    found = apart(steps, rounds)
    rate = matmul_rate(torch.bfloat16, device())
    flops = {kind: train_flops(shape, **fields) for kind, fields in kinds.items()}
    on_one_thread: dict[str, float] = {}
    if device() == "cpu":  # the time that other programs take is not in it
        alike = {kind: (train_step(shape, **fields), flops[kind]) for kind, fields in kinds.items()}
        on_one_thread = shares_of_cpu_time(alike, 4 * rounds)
    rows = [
        {
            "step": kind,
            "seconds": found[kind]["seconds"],
            "tokens_per_second": shape.batch * shape.seq / found[kind]["seconds"],
            "share_of_bf16_rate": flops[kind] / found[kind]["seconds"] / rate,
            "peak_mib": found[kind]["peak_mib"],
            "share_of_one_thread": on_one_thread.get(kind),
        }
        for kind in kinds
    ]
    return {"shape": shape.name, "bf16_rate": rate, "rows": rows}


def trainer_overhead(steps: int = 100) -> dict[str, Any]:
    """Return the time per step of a `laptop` run in the Trainer over that of a bare loop before and after it."""
    shape = Shape("laptop", 8, 128)
    bare = train_step(shape, "ours")
    bare()

    def bare_steps() -> None:
        for _ in range(steps // 2):
            bare()

    with tempfile.TemporaryDirectory() as folder:
        run = preset_run("laptop")
        settings = replace(run.train, max_steps=steps, save_every=10 * steps)
        alone = seconds(bare_steps)
        trained = train(replace(run, train=settings, out=str(Path(folder, "run"))), quiet=True)
        alone += seconds(bare_steps)
    assert trained is not None
    row = {
        "bare_ms": 1e3 * alone / steps,
        "trainer_ms": 1e3 * trained.seconds / steps,
        "trainer_over_bare": trained.seconds / alone,
    }
    return {"shape": shape.name, "rows": [row]}
