"""Does the scale controller land on its target, and what does it cost against a fixed norm penalty?

    python -m benchmarks.scale_target --penalties 0 0.001 0.01 --targets 2 4 --seeds 42 43

trains `laptop` (per-loop cross-entropy behind RMSNorm) under every fixed `norm_penalty_coef` and every `scale_target`
and prints, per run, the RMS scale after the last loop and the perplexity of the exits on validation text, in eval mode.
A target is compared with the fixed penalty of its seed that ends nearest to the target (`same scale`), and with the one
of the lowest mean perplexity (`best`). A run takes one to two minutes on one core; finished ones are read again.
"""

import argparse
import json
import math
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loopscale.data import batches
from loopscale.evaluate import depth_curve
from loopscale.train import RunConfig, preset_run, train

BATCH_SIZE, BATCHES = 32, 4  # of validation windows, as `reproduce` evaluates


def run_of(name: str, value: float, seed: int, every: int, out: Path) -> RunConfig:
    """Return the run of one fixed penalty or one target."""
    run = preset_run("laptop").with_model(supervision="per_loop", readout="rmsnorm")
    settings: dict[str, Any] = {"seed": seed}
    if name == "penalty":
        run = run.with_model(norm_penalty_coef=value)
    else:
        settings |= {"scale_target": value, "monitor_every": every}
    return replace(run, train=replace(run.train, **settings), out=str(out / f"{name}-{value:g}" / f"seed-{seed}"))


def measure(run: RunConfig) -> dict[str, Any]:
    """Train, or read what was trained, and return its scale and perplexities."""
    record = run.folder / "scale_target.json"
    if not record.exists():
        trained = train(run, quiet=True)
        assert trained is not None
        model = trained.model
        exits = list(depth_curve(model, batches(trained.data.valid, BATCH_SIZE, BATCHES), model.num_loops))
        found = {
            "scale": exits[-1].norm / math.sqrt(model.config.hidden_size),
            "perplexity": [point.perplexity for point in exits],
        }
        record.write_text(json.dumps(found) + "\n")
    return dict(json.loads(record.read_text()))


def main() -> None:
    """Train the grid and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penalties", type=float, nargs="*", default=[])
    parser.add_argument("--targets", type=float, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--every", type=int, default=10, help="steps between two readings of the controller")
    parser.add_argument("--out", type=Path, default=Path("runs/scale-target"))
    args = parser.parse_args()
    table = Table("run", "seed", "scale", "off target", "exits", "mean", "exit 4", "same scale", "best", box=None)
    for seed in args.seeds:
        fixed = {p: measure(run_of("penalty", p, seed, args.every, args.out)) for p in args.penalties}
        for penalty, row in fixed.items():
            table.add_row(f"penalty {penalty:g}", str(seed), *_figures(row, None))
        best = min(fixed.values(), key=_mean, default=None)
        for target in args.targets:
            row = measure(run_of("target", target, seed, args.every, args.out))
            near = min(fixed.values(), key=partial(_distance, target), default=None)
            table.add_row(f"target {target:g}", str(seed), *_figures(row, target), _cost(row, near), _cost(row, best))
    Console(width=140).print(table)


def _figures(row: dict[str, Any], target: float | None) -> tuple[str, ...]:
    off = "" if target is None else f"{row['scale'] / target - 1:+.1%}"
    exits = row["perplexity"]
    return f"{row['scale']:.2f}", off, " ".join(f"{x:.2f}" for x in exits), f"{_mean(row):.2f}", f"{exits[-1]:.2f}"


def _distance(target: float, row: dict[str, Any]) -> float:
    """Return how far a run landed from a scale, in logarithms."""
    return abs(math.log(row["scale"] / target))


def _cost(row: dict[str, Any], other: dict[str, Any] | None) -> str:
    """Return by how much the mean over exits and exit 4 are worse than another run's, and that one's scale."""
    if other is None:
        return ""
    last = row["perplexity"][-1] / other["perplexity"][-1] - 1
    return f"{_mean(row) / _mean(other) - 1:+.1%} {last:+.1%} (at {other['scale']:.2f})"


def _mean(row: dict[str, Any]) -> float:
    return statistics.fmean(row["perplexity"])


if __name__ == "__main__":
    main()
