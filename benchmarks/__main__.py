"""`make bench`: print the tables, write the JSON. `python -m benchmarks --only growth --rounds 5` runs a part."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.exits import curve_cost
from benchmarks.shapes import SHAPES, device
from benchmarks.training import against_plain, growth, trainer_overhead
from loopscale.environment import environment

PARTS = ("training", "growth", "trainer", "curve")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3, help="paired rounds behind every median")
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile too (it compiles for a minute)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    args = parser.parse_args()
    console, found, start = Console(), {"environment": environment()}, time.time()
    small, large = SHAPES[device()]
    work = {
        "training": lambda: [against_plain(shape, args.rounds, args.compiled) for shape in (small, large)],
        "growth": lambda: growth(large if device() == "cuda" else small, args.rounds),
        "trainer": trainer_overhead,
        "curve": lambda: [curve_cost(shape, args.rounds) for shape in (small, large)],
    }
    for part in args.only:
        console.print(f"[dim]{part} ({time.time() - start:.0f} s so far)")
        found[part] = work[part]()
        show(console, part, found[part])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"written to {args.out}")


def show(console: Console, part: str, found: Any) -> None:
    """Print one part; training as a table, the others as they are."""
    if part != "training":
        console.print_json(json.dumps(found))
        return
    for result in found:
        table = Table(title=f"{result['shape']}, bf16 matrix rate {result['bf16_rate'] / 1e9:.0f} GFLOP/s")
        for heading in ("step", "seconds", "tokens/s", "times plain", "share of rate", "peak MiB", "first loss"):
            table.add_column(heading, justify="right")
        for kind, row in result["rows"].items():
            table.add_row(
                kind,
                f"{row['seconds']:.3f}",
                f"{row['tokens_per_second']:.0f}",
                f"{row['times_plain']:.2f}",
                f"{row['share_of_bf16_rate']:.0%}",
                f"{row['peak_mib']:.0f}" if "peak_mib" in row else "",
                f"{row['first_loss']:.4f}" if row["first_loss"] is not None else "",
            )
        console.print(table)


if __name__ == "__main__":
    main()
