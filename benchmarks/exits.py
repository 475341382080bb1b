"""Reading every exit: a forward pass with all heads, and the depth curve, against one full-depth pass."""

from typing import Any

import torch

from benchmarks.shapes import Shape, build_batch, build_model
from benchmarks.timing import paired
from loopscale import run_loops
from loopscale.evaluate import depth_curve
from loopscale.objective import token_cross_entropy


def curve_cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return the seconds of one pass with its K heads, and of the depth curve over the same tokens."""
    model = build_model(shape).eval()
    ids, labels = build_batch(shape, model.config.vocab_size)
    batch = torch.cat([ids, labels[:, -1:]], 1)

    @torch.no_grad()
    def one_pass() -> None:
        for k, z in enumerate(run_loops(model, ids)):
            token_cross_entropy(model.readout_state(z, k), model.lm_head.weight, labels)

    times = paired({"pass": one_pass, "curve": lambda: depth_curve(model, [batch], model.num_loops)}, rounds)
    return {"shape": shape.name, **times, "ratio": times["curve"] / times["pass"]}
