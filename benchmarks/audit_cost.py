"""The audit's verdicts against a training step of the same windows, both in float32."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import Shape, build_batch, build_model
from benchmarks.timing import Contestant, Step, apart
from loopscale import LoopedForCausalLM
from loopscale.audit import audit


def audit_cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return seconds and peak memory of an audit and of a training step, each in a process of its own."""
    found = apart({name: Contestant(build, (shape,)) for name, build in BUILDERS.items()}, rounds)
    step = found["training step"]
    rows = [
        {
            "what": name,
            "seconds": one["seconds"],
            "peak_mib": one["peak_mib"],
            "over_step": one["seconds"] / step["seconds"],
            "memory_over_step": one["peak_mib"] / step["peak_mib"],
        }
        for name, one in found.items()
    ]
    return {"shape": shape.name, "rows": rows}


def build_audit(shape: Shape) -> Step:
    """Return the verdicts' computation; its value is the cross-entropy of the last exit."""
    model, batch = _problem(shape)
    return lambda: audit(model, [batch]).cross_entropy[-1]


def build_step(shape: Shape) -> Step:
    """Return one optimizer step without autocast; its value is the loss."""
    model, batch = _problem(shape)
    optimizer = torch.optim.AdamW(model.train().parameters(), fused=True)

    def step() -> Tensor:
        loss = model(batch[:, :-1], shift_labels=batch[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _problem(shape: Shape) -> tuple[LoopedForCausalLM, Tensor]:
    model = build_model(shape)
    ids, labels = build_batch(shape, model.config.vocab_size)
    return model, torch.cat([ids, labels[:, -1:]], 1)


BUILDERS = {"audit": build_audit, "training step": build_step}
