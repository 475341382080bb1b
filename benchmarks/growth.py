"""How a training step grows with the number of loops, the length of a window and the vocabulary."""

import math
from typing import Any

from benchmarks.shapes import Shape, train_step
from benchmarks.timing import Step, live_mib, paired

LOOPS = (1, 2, 4, 8, 16)
LENGTHS = (64, 128, 256, 512)
VOCABULARIES = (256, 1_024, 4_096, 16_384)


def by_loops(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return step time by K with the exponent of its growth, and live memory with checkpointed loops.

    What does not grow with K (optimizer, embedding) is taken out of the exponent by the differences from one loop.
    Exits' states, one per loop, are told apart: the rest is what checkpointing promises to hold.
    """
    times = paired({str(K): train_step(shape, "ours", num_loops=K) for K in LOOPS}, rounds)
    state = shape.batch * shape.seq * shape.config().hidden_size * 4 / 2**20
    points = [(float(K - 1), times[str(K)] - times["1"]) for K in LOOPS[1:] if times[str(K)] > times["1"]]
    rows = []
    for K in LOOPS:
        live = live_mib(train_step(shape, "saving", num_loops=K))
        rows.append(
            {"loops": K, "seconds": times[str(K)], "saving_live_mib": live, "of_which_exit_states_mib": K * state}
        )
    held = [row["saving_live_mib"] - row["of_which_exit_states_mib"] for row in rows]
    return {
        "shape": shape.name,
        "exponent_of_time": exponent(points),
        "saving_memory_over_one_loop": held[-1] / held[0],
        "rows": rows,
    }


def by_length(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return step time by tokens per window: attention alone grows faster than linearly."""
    return _by("length", shape, rounds, {T: train_step(shape.at(seq=T), max_position_embeddings=T) for T in LENGTHS})


def by_vocabulary(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return step time by vocabulary."""
    return _by("vocabulary", shape, rounds, {V: train_step(shape, vocab_size=V) for V in VOCABULARIES})


def exponent(points: list[tuple[float, float]]) -> float:
    """Return the least-squares slope of log y over log x; NaN for fewer than two points, as noise may leave."""
    if len(points) < 2:
        return math.nan
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def _by(name: str, shape: Shape, rounds: int, steps: dict[int, Step]) -> dict[str, Any]:
    times = paired({str(value): step for value, step in steps.items()}, rounds)
    first = times[str(min(steps))]
    rows = [{name: value, "seconds": times[str(value)], "over_first": times[str(value)] / first} for value in steps]
    return {"shape": shape.name, "rows": rows}
