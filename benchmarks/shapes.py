"""The shapes that are measured, and the training steps built at them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain import plain_loss
from benchmarks.timing import Step
from loopscale import LoopedForCausalLM
from loopscale.model import LoopedConfig, preset_config
from loopscale.train import preset_run
from loopscale.train.arguments import precision


@dataclass(frozen=True)
class Shape:
    """A preset's size at a batch."""

    preset: str
    batch: int
    seq: int

    @property
    def name(self) -> str:
        return f"{self.preset} B{self.batch} T{self.seq}"

    def config(self, **overrides: Any) -> LoopedConfig:
        return preset_config(self.preset, **overrides)

    def at(self, **sizes: Any) -> "Shape":
        return replace(self, **sizes)


SHAPES = {
    "cpu": (Shape("laptop", 8, 128), Shape("44m", 4, 256), Shape("129m", 2, 256)),
    "cuda": (Shape("44m", 64, 256), Shape("129m", 32, 256)),
}


_CHOSEN: list[str] = []


def use(name: str) -> None:
    """Measure on this device in this process, whatever else the machine has."""
    _CHOSEN[:] = [name]


def device() -> str:
    return _CHOSEN[0] if _CHOSEN else "cuda" if torch.cuda.is_available() else "cpu"


def build_model(shape: Shape, **overrides: Any) -> LoopedForCausalLM:
    torch.manual_seed(0)
    return LoopedForCausalLM(shape.config(**overrides)).to(device())


def build_windows(shape: Shape, vocab: int) -> Tensor:
    """Return random tokens, (batch, seq + 1)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab, (shape.batch, shape.seq + 1), generator=generator).to(device())


def build_batch(shape: Shape, vocab: int) -> tuple[Tensor, Tensor]:
    windows = build_windows(shape, vocab)
    return windows[:, :-1], windows[:, 1:]


def train_step(
    shape: Shape, kind: str = "ours", asked: Callable[[], Mapping[str, int]] = dict, **overrides: Any
) -> Step:
    """Build one optimizer step: `plain`, `ours`, `saving` (checkpointed loops), `compiled`, `float32`.

    `asked` gives what a forward is asked for beside, such as its loops, anew at every step.
    """
    model = build_model(shape, **overrides).train()
    ids, labels = build_batch(shape, model.config.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), fused=kind != "plain")
    model.checkpoint_loops = kind == "saving"
    if kind == "compiled":
        model.compile_regions()
    in_float32 = kind == "float32" or (kind == "plain" and device() == "cpu")
    autocast = precision(preset_run("laptop")) == "bf16" and not in_float32

    def step() -> Tensor:
        with torch.autocast(device(), torch.bfloat16, enabled=autocast):
            loss = (
                plain_loss(model, ids, labels)
                if kind == "plain"
                else model(ids, shift_labels=labels, supervised_exits_only=True, **asked()).loss
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def train_flops(shape: Shape, **overrides: Any) -> float:
    """Count the matrix products of a training step: 6 per weight and token that reads it, and the attention scores.

    Every exit is supervised: the loops and what is read behind them count K times, what stands before them once.
    """
    config = shape.config(**overrides)
    with torch.device("meta"):
        model = LoopedForCausalLM(config)

    def products(*parts: torch.nn.Module) -> int:
        return 6 * sum(p.numel() for part in parts for p in part.parameters() if p.ndim == 2)

    scores = 3 * 4 * shape.seq * config.hidden_size  # q k^T and weights v, all pairs as a dense kernel computes them
    stack = model.model
    loop = products(stack.layers, stack.injection) + len(stack.layers) * scores
    exit_ = products(stack.coda, model.coda_input, model.lm_head) + len(stack.coda) * scores
    before = products(stack.prelude) + len(stack.prelude) * scores
    return shape.batch * shape.seq * (before + config.num_loops * (loop + exit_))
