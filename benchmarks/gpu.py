"""What one GPU makes of a training step and of decoding: python -m benchmarks.gpu --out FILE.

All in one process, and the file is written after every measurement; `--shapes laptop --device cpu` tries it anywhere.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.shapes import SHAPES, Shape, build_batch, build_model, device, train_flops, train_step, use
from benchmarks.timing import Step, matmul_rate, seconds
from loopscale import LoopedForCausalLM
from loopscale.decode import Generation, early_exit_generate, full_depth_generate, speculative_generate
from loopscale.plan import device_called
from loopscale.stepping import Looped
from loopscale.system.environment import environment

COMPILED = "compiled"
KINDS = ("ours", "saving", COMPILED)  # of a step: as it is, with checkpointed loops, with compiled layers and head
BATCHES = (1, 8)
PROMPT, NEW = 32, 64

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    presets = sorted({shape.preset for shapes in SHAPES.values() for shape in shapes})
    parser.add_argument("--shapes", nargs="+", choices=presets, default=["44m", "129m"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of training steps")
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on one measurement, beside its warm-up")
    args = parser.parse_args()
    use(args.device)
    console, began = Console(), time.time()
    found: dict[str, Any] = {
        "environment": environment(),
        "device": args.device,
        "bf16_rate": matmul_rate(torch.bfloat16, device()),
        "rows": [],
    }
    for row in measurements(args.shapes, args.kinds, args.seconds):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        found["rows"].append(row)
        found["seconds"] = time.time() - began
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        told = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
        console.print(f"{found['seconds']:5.0f} s", ", ".join(told), soft_wrap=True, highlight=False)
    console.print(f"written to {args.out}")


def measurements(names: Sequence[str], kinds: Sequence[str], budget: float) -> Iterator[Row]:
    """Yield one row after another: what compiles comes last, and a failure is a row too."""
    shapes = [shape for shape in (*SHAPES[device()], *SHAPES["cpu"]) if shape.preset in names]
    shapes = list({shape.preset: shape for shape in reversed(shapes)}.values())[::-1]  # the batch is the device's
    jobs: list[tuple[Row, Callable[[], Row]]] = [
        ({"part": "waits", "shape": shape.name}, partial(waits, shape)) for shape in shapes
    ]
    steps: list[tuple[Row, Callable[[], Row]]] = [
        ({"part": "training", "shape": shape.name, "step": kind}, partial(training, shape, kind, budget))
        for kind in kinds
        for shape in shapes
    ]
    jobs += [step for step in steps if step[0]["step"] != COMPILED]
    jobs += [
        ({"part": "decoding", "shape": shape.preset, "batch": batch, "way": way}, partial(decoding, shape, batch, way))
        for shape in shapes
        for batch in BATCHES
        for way in WAYS
    ]
    for about, job in [*jobs, *(step for step in steps if step[0]["step"] == COMPILED)]:
        try:
            yield {**about, **job()}
        except Exception as error:  # a card without the memory, a compiler that is not there
            yield {**about, "failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def waits(shape: Shape) -> Row:
    """Make forward and backward of a step while every wait for the device is an error; say what waited, if anything."""
    model = build_model(shape).train()
    ids, labels = build_batch(shape, model.config.vocab_size)

    def forward_and_backward() -> None:
        with torch.autocast(device(), torch.bfloat16):
            loss = model(ids, shift_labels=labels, supervised_exits_only=True).loss
        loss.backward()

    forward_and_backward()
    if device() != "cuda":
        return {"waited_for": "not known: no CUDA device"}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        forward_and_backward()
    except RuntimeError as error:
        return {"waited_for": str(error).splitlines()[0]}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"waited_for": None}


def training(shape: Shape, kind: str, budget: float) -> Row:
    """Return a step's time, tokens per second, peak memory in all and share of the matrix rate that was measured."""
    began = time.perf_counter()
    step = train_step(shape, kind)
    first = float(step())
    step()
    warm_up = time.perf_counter() - began
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = _repeated(step, budget)
    median = statistics.median(times)
    rate = matmul_rate(torch.bfloat16, device())
    card = device_called(torch.cuda.get_device_name()) if device() == "cuda" else None
    published = None if card is None or card.peak_tflops is None else card.peak_tflops * 1e12
    return {
        "seconds": median,
        "steps": len(times),
        "tokens_per_second": shape.batch * shape.seq / median,
        "model_flops_per_second": train_flops(shape) / median,
        "share_of_published_peak": None if published is None else train_flops(shape) / median / published,
        "share_of_measured_rate": train_flops(shape) / median / rate,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device() == "cuda" else None,
        "warm_up_seconds": warm_up,
        "first_loss": first,
    }


def decoding(shape: Shape, batch: int, way: str) -> Row:
    """Return tokens per second of all rows in bf16.

    Weights are untrained, and every exit repeats the token before: the most that drafts can save, not what they do.
    """
    model = build_model(shape, dropout=0.0).eval().to(torch.bfloat16)
    ids = build_batch(replace(shape, batch=batch), model.config.vocab_size)[0][:, :PROMPT]
    written: list[Any] = []
    write = partial(WAYS[way], model, ids)
    write()
    median = statistics.median(seconds(lambda: written.append(write())) for _ in range(3))
    row: Row = {"seconds": median, "tokens_per_second": batch * NEW / median}
    if isinstance(written[-1], Generation):
        stats = written[-1].stats
        row |= {"loops_per_token": stats.loops_per_token, "passes_per_token": stats.passes_per_token}
        row |= {"acceptance": stats.acceptance, "rechecked": stats.rechecked} if stats.drafted else {}
    return row


@final
class Leave:
    """A rule that lets every token go after one loop: what an exit there saves, whatever a calibrated rule chooses."""

    def __init__(self, loop: int) -> None:
        self.loop = loop

    def watch(self, model: Looped) -> Callable[[int, Tensor, Any], Tensor]:
        """Return what to ask at every loop; it looks at the logits, as most rules do."""
        return lambda k, z, logits: (logits()[..., 0] < torch.inf) & (k + 1 >= self.loop)


def _generate(model: LoopedForCausalLM, ids: Tensor) -> Tensor:
    return model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)


WAYS: dict[str, Callable[[LoopedForCausalLM, Tensor], Any]] = {
    "generate": _generate,
    "bare loop": lambda model, ids: full_depth_generate(model, ids, NEW),
    "early exit after loop 1": lambda model, ids: early_exit_generate(model, ids, NEW, Leave(1)),
    "early exit after loop 2": lambda model, ids: early_exit_generate(model, ids, NEW, Leave(2)),
    "speculation": lambda model, ids: speculative_generate(model, ids, NEW),
}


def _repeated(step: Step, budget: float) -> list[float]:
    """Return the seconds of single steps, at least 3 and for as long as the budget lasts."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        times.append(seconds(step))
    return times


if __name__ == "__main__":
    main()
