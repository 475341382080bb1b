"""Records of a plan: what a training takes of a device and makes of it, and what it was asked about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from loopscale.errors import InputError
from loopscale.model.size import memory
from loopscale.plan.devices import Device
from loopscale.plan.loops_or_width import Alternative
from loopscale.plan.parameters import Parameters

#: Of a CPU training, by `python -m benchmarks.memory` (results/bench-cpu/memory.json): what a process has before its
#: model, and what lies between tensors in a heap that keeps what is freed, as a share of them.
LIBRARIES = 300 * 2**20
HOLES = 0.2
USABLE = (
    0.92  # of a device's memory: the rest is its driver's, libraries' and what lies between tensors; of a CPU, others'
)


@final
@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak of a step; `kept` waits for the backward pass, and is part of `working`.

    buckets: copies of the gradients in which processes exchange them. gathered: weights of others, where each process
    holds its share. working: all else that is alive at the peak. outside: what no tensor has of a CPU's memory,
    libraries and holes of the heap; a GPU's is in the share that is left unused.
    """

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    gathered: int
    working: int
    outside: int
    kept: int

    @property
    def total(self) -> int:
        """Bytes together."""
        return self.tensors + self.outside

    @property
    def tensors(self) -> int:
        """Bytes of all tensors."""
        return self.weights + self.gradients + self.optimizer + self.buckets + self.gathered + self.working


@final
@dataclass(frozen=True)
class Mode:
    """A way to train: with loops kept or recomputed. None where a peak, a price or a length is not known."""

    memory: Memory
    total_bytes: int
    fits: bool
    flops_per_token: float
    tokens_per_second: float | None
    hours: float | None
    cost: float | None
    largest_micro_batch: int | None


@final
@dataclass(frozen=True)
class Logits:
    """Bytes that the losses of all supervised exits have alive at once: fused, and with every exit's logits kept."""

    fused: int
    plain: int


@final
@dataclass(frozen=True)
class Plan:
    """Everything that was worked out; bytes, tokens, hours and the unit of the price."""

    parameters: Parameters
    loops: float
    loops_with_gradient: float
    vocabulary: int
    sequence: int
    micro_batch: int
    micro_batches: int
    precision: str
    device: Device
    memory_bytes: int
    devices: int
    sharded: bool
    share_of_peak: float
    price: float | None
    tokens: float | None
    kept: Mode
    checkpointed: Mode
    logits: Logits
    doubled: Mapping[str, Mode]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Circumstances:
    """On what, for how long and at what price a run is planned."""

    device: Device
    devices: int = 1
    tokens: float | None = None
    share_of_peak: float = 0.4
    price: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("devices", self.devices), ("tokens", self.tokens), ("price", self.price)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name} is {value}: give a number above 0.")
        if not 0 < self.share_of_peak <= 1:
            raise InputError(f"--mfu is {self.share_of_peak}: give a share of the peak above 0 and up to 1.")
        for name, size in (("memory_gib", self.device.memory_gib), ("peak_tflops", self.device.peak_tflops)):
            if size is not None and not 0 < size < float("inf"):
                raise InputError(f"--{name} is {size}: give a number above 0.")

    @property
    def memory(self) -> int:
        """Bytes of one device."""
        return memory() if self.device.memory_gib is None else int(self.device.memory_gib * 2**30)
