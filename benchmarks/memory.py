"""A plan's memory against what a CPU training takes of it: python -m benchmarks.memory --out FILE.

Measured of every case, each in a process of its own: the tensors alive at the peak of a step, by torch's own profiler;
the peak of a `loopscale train` as the system counts it; and of some the same with a heap that hands freed memory
back at once, which has no holes. And of the losses of all exits alone, the tensors alive, in the fused head and not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from rich.console import Console

from benchmarks.shapes import Shape, train_step
from benchmarks.timing import kib, live_mib
from loopscale.display import Column, Table
from loopscale.objective import fused_cross_entropy, logit_cross_entropy
from loopscale.plan import LIBRARIES, Circumstances, device_of, plan_memory
from loopscale.system.environment import environment
from loopscale.train import RunConfig, preset_run
from loopscale.train.run_folder import DONE_FILE

MIB, SEQUENCE, STEPS = 2**20, 256, 3
TEXT = "Loops carry what no readout sees.\n" * 4_000
#: What a command does but for the setting of glibc's heap: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD are small instead.
HANDING_BACK = (
    "import ctypes, sys; from loopscale.system import allocator; from loopscale.cli.main import main; "
    "allocator.keep_freed_memory = lambda: [ctypes.CDLL(None).mallopt(key, 65536) for key in (-3, -1)]; "
    "sys.exit(main(sys.argv[1:]))"
)


@final
@dataclass(frozen=True)
class Case:
    """A training: a preset's sizes with bytes as tokens, the batch, the loops, and whether they are recomputed."""

    preset: str
    batch: int
    loops: int = 4
    recomputed: bool = False

    def run(self) -> RunConfig:
        run = preset_run(self.preset)
        train = replace(run.train, batch_size=self.batch, checkpoint_loops=self.recomputed, max_steps=STEPS)
        return replace(run, model={**run.model, "num_loops": self.loops}, train=train)


CASES = (
    *(Case("44m", 2), Case("44m", 2, recomputed=True), Case("44m", 4), Case("44m", 2, loops=8)),
    *(Case("129m", 1), Case("129m", 1, recomputed=True), Case("129m", 2)),
)
HANDED_BACK = (Case("44m", 2),)  # it is slow: every page is zeroed anew


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    numbers = range(len(CASES))
    parser.add_argument("--cases", type=int, nargs="+", choices=numbers, default=numbers, help="by their places")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)  # one case, in a process of its own
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(live(CASES[args.measure])))
        return
    before = json.loads(args.out.read_text())["rows"] if args.out.is_file() else []
    rows = {Case(**{name: row[name] for name in Case.__annotations__}): row for row in before}
    found = {"environment": environment(), "sequence": SEQUENCE, "steps": STEPS}
    for number in args.cases:
        case = CASES[number]
        if case not in rows:  # what the file has is not measured again
            rows[case] = {**asdict(case), **measured(number, case)}
        rows[case] |= planned(case)
        ordered = [rows[case] for case in CASES if case in rows]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**found, "rows": ordered}, indent=1) + "\n")
        Console().print(table(ordered), "")
    Console().print(f"written to {args.out}")


def planned(case: Case) -> dict[str, float]:
    """Return what a plan says of a case, in MiB."""
    memory, logits = plan_memory(case.run(), Circumstances(device_of("cpu")), case.recomputed)
    return {
        "planned_tensors": memory.tensors / MIB,
        "planned": memory.total / MIB,
        "planned_without_holes": (memory.tensors + LIBRARIES) / MIB,
        "planned_head": logits.fused / MIB,
        "planned_head_plain": logits.plain / MIB,
    }


def measured(number: int, case: Case) -> dict[str, float]:
    """Return what a case took, in MiB: weights and the optimizer's numbers are there before the step."""
    words = [sys.executable, "-m", "benchmarks.memory", "--out", "-", "--measure", str(number)]
    alone = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    memory, _ = plan_memory(case.run(), Circumstances(device_of("cpu")), case.recomputed)
    return {
        "live_tensors": (memory.weights + memory.optimizer) / MIB + alone["step"],
        "live_head": alone["fused"],
        "live_head_plain": alone["plain"],
        "resident": resident(case),
        **({"resident_handed_back": resident(case, handed_back=True)} if case in HANDED_BACK else {}),
    }


def live(case: Case) -> dict[str, float]:
    """Return the MiB that a step and the losses of all exits have alive, by torch's profiler of its allocator."""
    kind = "saving" if case.recomputed else "ours"
    config = case.run().model_config(None)
    rows, exits = case.batch * SEQUENCE, case.loops
    weight = torch.randn(config.vocab_size, config.hidden_size).bfloat16().requires_grad_()
    seen = [torch.randn(rows, config.hidden_size).bfloat16().requires_grad_() for _ in range(exits)]
    labels, weights = torch.zeros(rows, dtype=torch.long), torch.ones(exits, rows)
    step = train_step(Shape(case.preset, case.batch, SEQUENCE), kind, num_loops=case.loops)

    def forget() -> None:
        for leaf in (weight, *seen):
            leaf.grad = None

    def fused() -> None:
        forget()
        fused_cross_entropy(seen, weight, labels, weights)[0].backward()
        forget()

    def plain() -> None:
        forget()
        torch.stack([logit_cross_entropy(x @ weight.T, labels) for x in seen]).sum().backward()
        forget()

    return {"step": live_mib(step), "fused": live_mib(fused), "plain": live_mib(plain)}


def resident(case: Case, handed_back: bool = False) -> float:
    """Return the MiB that a whole `loopscale train` had resident at its peak, as the system counts a process."""
    program = ["-c", HANDING_BACK] if handed_back else ["-m", "loopscale"]
    with tempfile.TemporaryDirectory() as folder:
        (text := Path(folder, "text.txt")).write_text(TEXT)
        options = {
            "preset": case.preset,
            "model.num_loops": case.loops,
            "model.vocab_size": case.run().model_config(None).vocab_size,
            "data.corpus": text,
            "data.tokenizer": "bytes",
            "train.batch_size": case.batch,
            "train.checkpoint_loops": str(case.recomputed).lower(),
            "train.max_steps": STEPS,
            "out": Path(folder, "run"),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        started = subprocess.Popen([sys.executable, *program, "train", *words], stdout=subprocess.DEVNULL)
        while started.poll() is None and not Path(folder, "run", DONE_FILE).is_file():
            time.sleep(0.2)
        if started.returncode is not None:
            raise SystemExit(f"{case} ended with status {started.returncode}")
        peak = kib("VmHWM", Path(f"/proc/{started.pid}/status")) / 2**10
        started.kill()  # what it measures for its card is not the training's
        started.wait()
    return peak


def table(rows: list[dict[str, Any]]) -> Any:
    """Return the rows as a table: MiB planned and measured, and how far the plan is off."""

    def off(one: dict[str, Any], planned: str, measured: str) -> str:
        return f"{one[measured]:,.0f} ({one[planned] / one[measured] - 1:+.1%})" if measured in one else ""

    cells = tuple(
        (
            f"{one['preset']} x {one['batch']}, {one['loops']} loops" + (" recomputed" if one["recomputed"] else ""),
            f"{one['planned_tensors']:,.0f}",
            off(one, "planned_tensors", "live_tensors"),
            f"{one['planned']:,.0f}",
            off(one, "planned", "resident"),
            off(one, "planned_without_holes", "resident_handed_back"),
            off(one, "planned_head", "live_head"),
            off(one, "planned_head_plain", "live_head_plain"),
        )
        for one in rows
    )
    headings = ("tensors planned", "alive", "all planned", "resident", "without holes", "fused head", "all logits")
    return Table(
        "memory",
        "Memory of a step",
        "MiB measured, and how far the plan is from it.",
        (Column("case"), *(Column(heading, numeric=True) for heading in headings)),
        cells,
    )


if __name__ == "__main__":
    main()
