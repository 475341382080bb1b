"""The audit's verdicts against a training step of the same windows, both in float32."""

from typing import Any

from benchmarks.shapes import Shape, build_model, build_windows, train_step
from benchmarks.timing import Contestant, Step, apart
from loopscale.audit import audit


def audit_cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return seconds and peak memory of an audit and of a training step, each in a process of its own."""
    contestants = {
        "audit": Contestant(build_audit, (shape,)),
        "training step": Contestant(train_step, (shape, "float32")),
    }
    found = apart(contestants, rounds)
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
    model = build_model(shape)
    windows = build_windows(shape, model.config.vocab_size)
    return lambda: audit(model, [windows]).cross_entropy[-1]
