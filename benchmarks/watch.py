"""Lead time of the watch's alarms over the loss, their false alarms, and what watching costs.

Every run trains a small looped model on the source text of Python's standard library; half of them at a learning rate
that is raised step by step to the end. Thresholds were set before, that of `surge` after a look at seeds 100
and 101. A detector is judged by its first alarm: before the run breaks it leads by so many steps, in a run that does
not break it is a false alarm. `python -m benchmarks.watch --out results/watch-cpu/watch.json`
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopscale.data import load_data
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.monitor import Alarm, watch
from loopscale.storage import write_json
from loopscale.system.environment import environment

STEPS, BATCH, SEQUENCE, EVERY = 240, 4, 32, 5
CALM, RISE = 1e-3, 1.08  # learning rate, and the factor a step by which half of the runs raise theirs
RISES_FROM = 80
SIZES = {"hidden_size": 32, "num_stack_layers": 1, "num_attention_heads": 2, "max_position_embeddings": SEQUENCE}
READOUTS = ("rmsnorm", "raw")
WORSE = 0.5  # nats that the smoothed loss is above its best for good: the run has broken
DETECTORS = ("surge", "drift", "idle", "range", "not_finite", "loss_spike")
SPIKE = 6.0  # standard deviations of the latest 50 losses, of a plain loss-spike detector
WINDOW = 50


@dataclass
class Run:
    """One run: its losses, and the step of the first alarm of each kind."""

    seed: int
    diverges: bool
    readout: str
    losses: list[float] = field(default_factory=list)
    first: dict[str, int] = field(default_factory=dict)
    broke: int | None = None
    seconds: float = 0.0


def train(seed: int, windows: Tensor, diverges: bool, readout: str) -> Run:
    """Train one model and note when each detector speaks first."""
    torch.manual_seed(seed)
    run = Run(seed, diverges, readout)
    model = LoopedForCausalLM(LoopedConfig(vocab_size=256, num_loops=4, readout=readout, dropout=0.0, **SIZES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), CALM, weight_decay=0.01)

    def note(alarm: Alarm) -> None:
        run.first.setdefault(alarm.kind, alarm.step)

    began = time.perf_counter()
    with watch(model, every=EVERY, on_alarm=note):
        for step in range(1, STEPS + 1):
            if diverges and step > RISES_FROM:
                optimizer.param_groups[0]["lr"] *= RISE
            batch = windows[torch.randint(len(windows), (BATCH,))]
            loss = model(batch[:, :-1], shift_labels=batch[:, 1:], supervised_exits_only=True).loss
            run.losses.append(loss.item())
            if not math.isfinite(run.losses[-1]):
                break
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    run.seconds = time.perf_counter() - began
    run.broke = broke(run.losses)
    if (spike := first_spike(run.losses)) is not None:
        run.first["loss_spike"] = spike
    return run


def broke(losses: list[float]) -> int | None:
    """Return the step from which on the smoothed loss stays `WORSE` above its best before; None where it does not."""
    smooth = [statistics.fmean(losses[max(0, i - 9) : i + 1]) for i in range(len(losses))]
    best, steps = math.inf, []
    for step, value in enumerate(smooth, 1):
        if not value < best + WORSE:  # NaN is no loss
            steps.append(step)
        else:
            steps = []
        best = min(best, value) if math.isfinite(value) else best
    return steps[0] if steps else None


def first_spike(losses: list[float]) -> int | None:
    """Return the first step whose loss is `SPIKE` deviations above the mean of the latest ones, or no number."""
    for i in range(WINDOW, len(losses)):
        past = losses[i - WINDOW : i]
        if not losses[i] < statistics.fmean(past) + SPIKE * statistics.stdev(past):
            return i + 1
    return None


def judged(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """Return lead times, misses and false alarms of every detector."""
    found = {}
    for kind in DETECTORS:
        broken, whole = [r for r in runs if r.broke], [r for r in runs if not r.broke]
        leads = [r.broke - r.first[kind] for r in broken if kind in r.first and r.broke]
        found[kind] = {
            "broken": len(broken),
            "told": len(leads),
            "told_before": sum(lead > 0 for lead in leads),
            "median_lead": statistics.median(leads) if leads else None,
            "leads": leads,
            "whole": len(whole),
            "false_alarms": sum(kind in r.first for r in whole),
        }
    return found


def cost(windows: Tensor, every: int, steps: int = 150) -> dict[str, float]:
    """Return seconds of a step without and with the watch, alternating, and what it says of itself."""
    torch.manual_seed(0)
    model = LoopedForCausalLM(LoopedConfig(vocab_size=256, num_loops=4, readout="rmsnorm", **SIZES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), CALM)

    def step() -> float:
        began = time.perf_counter()
        batch = windows[torch.randint(len(windows), (BATCH,))]
        model(batch[:, :-1], shift_labels=batch[:, 1:], supervised_exits_only=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    plain, watched, shares = [], [], []
    for _ in range(4):
        plain.append(statistics.fmean(step() for _ in range(steps)))
        with watch(model, every=every) as watching:
            watched.append(statistics.fmean(step() for _ in range(steps)))
            shares.append(watching.cost.share)
    return {
        "every": every,
        "plain_seconds": statistics.median(plain),
        "watched_seconds": statistics.median(watched),
        "own_share": statistics.median(shares),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("stdlib", "bytes", vocab_size=256, sequence_length=SEQUENCE, quiet=True)
    windows = torch.stack([torch.as_tensor(data.train[i]) for i in range(0, 4000)]).long()
    runs = []
    for i in range(args.seeds):
        run = train(args.first_seed + i, windows, diverges=i % 2 == 1, readout=READOUTS[i // 2 % 2])
        runs.append(run)
        print(
            run.seed,
            run.readout,
            f"raised {run.diverges}",
            f"broke {run.broke}",
            run.first,
            f"{run.seconds:.0f} s",
            flush=True,
        )
    result = {"judged": judged(runs), "cost": [cost(windows, every) for every in (10, 50)]}
    print(json.dumps(result, indent=1))
    if args.out is not None:
        kept = [{k: v for k, v in vars(run).items() if k != "losses"} for run in runs]
        document = {"environment": environment(), "steps": STEPS, "every": EVERY, "runs": kept, **result}
        write_json(args.out, document)


if __name__ == "__main__":
    main()
