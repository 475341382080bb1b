"""`make bench`: print the tables, write the JSON. `python -m benchmarks --only growth --rounds 5` runs a part."""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.audit_cost import audit_cost
from benchmarks.decode_cost import decode_cost
from benchmarks.depths import drawing, drawing_in_training, truncation
from benchmarks.exits import curve_cost
from benchmarks.growth import by_length, by_loops, by_vocabulary
from benchmarks.shapes import SHAPES, device
from benchmarks.training import against_plain, around_the_loops, trainer_overhead
from loopscale.system.allocator import keep_freed_memory
from loopscale.system.environment import environment

PARTS = ("training", "around", "growth", "depths", "trainer", "curve", "audit", "decode")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    presets = [shape.preset for shape in SHAPES[device()]]
    parser.add_argument("--shapes", nargs="+", choices=presets, default=presets, help="growth: the first of them")
    parser.add_argument("--rounds", type=int, default=3, help="paired rounds behind every median")
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile too (it compiles for a minute)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    args = parser.parse_args()
    console, start = Console(), time.time()
    found: dict[str, Any] = {"environment": environment()}
    keep_freed_memory()  # as every command does
    shapes = [shape for shape in SHAPES[device()] if shape.preset in args.shapes]
    growing = shapes[0].at(batch=min(shapes[0].batch, 16))  # the activations of 16 loops are to fit
    work: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "training": [partial(against_plain, shape, args.rounds, args.compiled) for shape in shapes],
        "around": [partial(around_the_loops, shape, args.rounds) for shape in shapes],
        "growth": [partial(grow, growing, args.rounds) for grow in (by_loops, by_length, by_vocabulary)],
        "depths": [
            partial(drawing, growing, args.rounds, args.compiled),
            partial(drawing_in_training, args.rounds),
            partial(truncation, growing),
        ],
        "trainer": [trainer_overhead],
        "curve": [partial(curve_cost, shape, args.rounds) for shape in shapes],
        "audit": [partial(audit_cost, shape, args.rounds) for shape in shapes],
        "decode": [partial(decode_cost, shape, args.rounds) for shape in shapes],
    }
    jobs = [(part, job) for part in args.only for job in work[part]]
    for i, (part, job) in enumerate(jobs, 1):
        console.print(f"[dim]{part}, measurement {i} of {len(jobs)} ({time.time() - start:.0f} s so far)")
        found.setdefault(part, []).append(job())
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next may run in processes of its own
        show(console, part, found[part][-1])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"written to {args.out}")


def show(console: Console, part: str, result: dict[str, Any]) -> None:
    """Print one result as a table; what is not a row stands in its title."""
    facts = [f"{_words(name)} {_short(value)}" for name, value in result.items() if name not in {"shape", "rows"}]
    table = Table(title=f"{part}: {', '.join([result['shape'], *facts])}")
    for name in result["rows"][0]:
        table.add_column(_words(name), justify="right")
    for row in result["rows"]:
        table.add_row(*(_short(value) for value in row.values()))
    console.print(table)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
