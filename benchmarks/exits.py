"""Reading every exit: a forward pass with all heads, and the depth curve, against passes that read less."""

from typing import Any

import torch

from benchmarks.shapes import Shape, build_model, build_windows
from benchmarks.timing import paired
from loopscale import run_loops
from loopscale.evaluate import depth_curve
from loopscale.objective import token_cross_entropy


def curve_cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Time a full-depth pass that scores the last exit, one that scores all K, and the depth curve of the same tokens.

    The K - 1 heads are what a curve must cost more than one exit; what the curve adds to them is ours to keep small.
    """
    model = build_model(shape).eval()
    windows = build_windows(shape, model.config.vocab_size)
    ids, labels = windows[:, :-1], windows[:, 1:]

    @torch.no_grad()
    def one_pass(first_exit: int) -> None:
        for k, z in enumerate(run_loops(model, ids)):
            if k >= first_exit:
                token_cross_entropy(model.readout_state(z, k), model.lm_head, labels)

    last = model.num_loops - 1
    times = paired(
        {
            "pass, last exit": lambda: one_pass(last),
            "pass, all exits": lambda: one_pass(0),
            "depth curve": lambda: depth_curve(model, [windows], model.num_loops),
        },
        rounds,
    )
    tokens, whole = shape.batch * shape.seq, times["pass, all exits"]
    rows = [
        {"what": name, "seconds": time, "tokens_per_second": tokens / time, "over_all_exits": time / whole}
        for name, time in times.items()
    ]
    return {"shape": shape.name, "rows": rows}
