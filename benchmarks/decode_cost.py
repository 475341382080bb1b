"""What one decoded token costs at a shape, with untrained weights; `benchmarks.decode` measures trained models."""

from typing import Any

from benchmarks.shapes import Shape, build_batch, build_model
from benchmarks.timing import paired
from loopscale.decode import full_depth_generate

PROMPT, NEW = 32, 64


def decode_cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Time transformers' `generate` and our bare loop on one prompt, at full depth and greedy."""
    model = build_model(shape).eval()
    ids = build_batch(shape, model.config.vocab_size)[0][:1, :PROMPT]
    times = paired(
        {
            "generate": lambda: model.generate(ids, max_new_tokens=NEW, do_sample=False),
            "bare loop": lambda: full_depth_generate(model, ids, NEW),
        },
        rounds,
    )
    rows = [
        {"what": name, "seconds": time, "tokens_per_second": NEW / time, "times_generate": times["generate"] / time}
        for name, time in times.items()
    ]
    return {"shape": shape.name, "rows": rows}
