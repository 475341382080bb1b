"""Control of the scale: what each way to keep a looped state in bounds is worth far past the trained depth, and costs.

Ways are compared at equal tokens, equal depth and nearly equal parameters, each at the best of its learning rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from loopscale.data import Data
from loopscale.evaluate import available, depth_curve, in_precision
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import evaluating, run_loops
from loopscale.storage import from_json, plain

from ...topic import Topic, ratio_of_perplexities, valid_batches
from ..looping import useful_band

BATCHES = 1
BATCH_SIZE = 8
FEW = 2  # windows show how far a loop moves the state
FAR = (2, 4, 16)  # times the trained depth
STEADY = 1.1  # a norm that changes by no more over the last half of the loops does not drift
SETTLED = 0.01  # change of the state in the last loop, relative to it, of one that settles

MEASURED_PRECISIONS = ("float32", "bfloat16", "float16", "int8")

Dynamics = Literal["settling", "marginal", "drifting"]


@final
@dataclass(frozen=True)
class FarExit:
    """An exit past the trained depth: nats per token, perplexity and mean ||z||_2."""

    exit: int
    cross_entropy: float
    perplexity: float
    norm: float


@final
@dataclass(frozen=True)
class ControlRecord:
    """How one trained model does far past its depth, and in other precisions.

    band: first and last exit, of all up to the farthest, around the best one and within 1% of it; depth_gain: exit 1's
    perplexity over the best exit's; last_change: mean relative change of the state in the farthest loop; precisions:
    perplexity of exits 1..K on the first batch in `float32`, pure `bfloat16` and `float16`, and `int8` weights,
    these where torchao is installed.
    """

    tokens: int
    far: tuple[FarExit, ...]
    band: tuple[int, int]
    depth_gain: float
    last_change: float
    dynamics: Dynamics
    precisions: Mapping[str, tuple[float, ...]]


def measure_control(model: LoopedForCausalLM, data: Data) -> ControlRecord:
    """Return the record of a trained model on a few windows of the valid split."""
    windows = list(valid_batches(model, data, BATCH_SIZE, BATCHES))
    K = model.num_loops
    curve = depth_curve(model, windows, FAR[-1] * K)
    change = last_change(model, windows[0][:FEW, :-1], len(curve))
    record = ControlRecord(
        tokens=int(curve.tokens.sum()),
        far=tuple(FarExit(p.exit, p.cross_entropy, p.perplexity, p.norm) for p in (curve[n * K - 1] for n in FAR)),
        band=useful_band([point.perplexity for point in curve]),
        depth_gain=ratio_of_perplexities(curve[0].cross_entropy - min(point.cross_entropy for point in curve)),
        last_change=change,
        dynamics=dynamics_of(curve[len(curve) // 2 - 1].norm, curve[-1].norm, change),
        precisions={name: exits_in(model, name, windows) for name in available(MEASURED_PRECISIONS)},
    )
    return from_json(plain(record), ControlRecord, "the control of scale")


def exits_in(model: LoopedForCausalLM, precision: str, windows: Sequence[Tensor]) -> tuple[float, ...]:
    """Return the perplexity of exits 1..K on the first of some batches, of a copy of the model in that precision."""
    curve = depth_curve(in_precision(model, precision), windows[:1], model.num_loops)
    return tuple(point.perplexity for point in curve)


def last_change(model: LoopedForCausalLM, input_ids: Tensor, loops: int) -> float:
    """Return the mean over tokens of ||z_n - z_{n-1}|| / ||z_n|| after so many loops."""
    before = state = torch.empty(0)
    with evaluating(model):
        for z in run_loops(model, input_ids, loops):
            before, state = state, z
    return float(((state - before).norm(dim=-1) / state.norm(dim=-1)).mean())


def dynamics_of(norm_halfway: float, norm_last: float, change: float) -> Dynamics:
    """Return what the state does far past the trained depth; what is not finite drifts."""
    if not 1 / STEADY <= norm_last / norm_halfway <= STEADY:
        return "drifting"
    return "settling" if change <= SETTLED else "marginal"


TOPIC: Topic[ControlRecord] = Topic(
    name="control",
    heading="Control of the scale",
    place=50,
    record=ControlRecord,
    measure=measure_control,
)
