"""Cost of an exit: floating-point operations by a formula, tokens per second and latency by the clock."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from loopscale.batches import device_of
from loopscale.call import Call
from loopscale.errors import require_looped
from loopscale.facts import TokenFlops, facts_of
from loopscale.stepping import Looped, evaluating

REPEATS = 5


def token_flops(model: Looped | Any, input_ids: Tensor) -> TokenFlops:
    """Return the operations per token for windows like `input_ids` (batch, seq): by formula where the model has one."""
    formula = facts_of(model).flops
    return counted_flops(model, input_ids) if formula is None else formula(input_ids.shape[1])


def counted_flops(model: Looped | Any, input_ids: Tensor) -> TokenFlops:
    """Return the operations per token that PyTorch's counter sees in each of the four verbs, for (batch, seq) ids."""
    require_looped(model)
    input_ids = input_ids.to(device_of(model))

    def count(verb: Callable[[], Tensor]) -> tuple[Tensor, float]:
        # the counter knows attention only as the matrix multiplications of this backend
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            result = verb()
        return result, counter.get_total_flops() / input_ids.numel()

    with evaluating(model):
        calls: list[Call] = []

        def begin() -> Tensor:
            calls.append(Call(model, input_ids))
            return calls[0].embed()

        h, embed = count(begin)
        z, step = count(lambda: calls[0].step(h, 0))
        _, carry = count(lambda: calls[0].carry(z, 0))
        _, readout = count(lambda: calls[0].readout(z, 0))
    return TokenFlops(embed, step, carry, readout)


@dataclass(frozen=True)
class Speed:
    """How fast one exit is at one batch size: `seconds` of one forward pass, in every round of timing."""

    exit: int
    batch_size: int
    sequence_length: int
    seconds: tuple[float, ...]

    @property
    def latency(self) -> float:
        """Median seconds of a forward pass."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Throughput at the median."""
        return self.batch_size * self.sequence_length / self.latency

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {**asdict(self), "latency": self.latency, "tokens_per_second": self.tokens_per_second}


def measure_speed(
    model: Looped | Any, input_ids: Tensor, exits: Sequence[int], repeats: int = REPEATS
) -> tuple[Speed, ...]:
    """Time forward passes of one model; see `measure_speeds`."""
    return measure_speeds({"": model}, {"": input_ids}, {"": exits}, repeats)[""]


def measure_speeds(
    models: Mapping[str, Looped | Any],
    input_ids: Mapping[str, Tensor],
    exits: Mapping[str, Sequence[int]],
    repeats: int = REPEATS,
) -> dict[str, tuple[Speed, ...]]:
    """Time forward passes over each model's `input_ids` (batch, seq) that stop at each of its `exits` and decode it.

    Every round goes over all exits of all models, so that a slow moment of the machine hits them alike: speeds of
    models that are to be compared must come from one call.
    """
    for model in models.values():
        require_looped(model)
    cases = [(name, k) for name in models for k in exits[name]]
    for model in models.values():
        require_looped(model)
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        passes = [_decode_at(models[name], input_ids[name].to(device_of(models[name])), k) for name, k in cases]
        times = interleaved_times(passes, device_of(next(iter(models.values()))), repeats)
    found: dict[str, list[Speed]] = {name: [] for name in models}
    for (name, k), seconds in zip(cases, times, strict=True):
        B, T = input_ids[name].shape
        found[name].append(Speed(k, B, T, tuple(seconds)))
    return {name: tuple(speeds) for name, speeds in found.items()}


def interleaved_times(actions: Sequence[Callable[[], None]], device: torch.device, repeats: int) -> list[list[float]]:
    """Return the seconds of each action in each of `repeats` rounds, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in actions]
    for i in range(repeats + 1):
        for action, seconds in zip(actions, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            action()
            _wait(device)
            if i:
                seconds.append(time.perf_counter() - start)
    return times


def _decode_at(model: Looped, input_ids: Tensor, exit: int) -> Callable[[], None]:
    def run() -> None:
        call = Call(model, input_ids)
        for z in call.states(exit):
            state = z
        call.readout(state, exit - 1)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
