"""Depth schedules: how many loops a training step runs, and through how many of them its gradient goes.

A schedule is a function of step and seed alone, so that every process draws alike and a resumed run draws what an
uninterrupted one would have drawn.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from loopscale.errors import InputError
from loopscale.mechanism import Mechanism, Named, choose
from loopscale.model import LoopedConfig


@final
@dataclass(frozen=True)
class Depth:
    """The loops of one step, and how many of them, the last ones, keep their gradient."""

    loops: int
    with_gradient: int


@dataclass(frozen=True)
class Truncation:
    """Through how many loops, the last ones, the gradient goes; all by default. Earlier ones keep no activations."""

    with_gradient: int | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if self.with_gradient is not None and self.with_gradient < 1:
            raise InputError(f"with_gradient is {self.with_gradient}: give at least 1.")


class DepthSchedule(Mechanism):
    """Depth of every training step of a model of `loops` loops. Every concrete schedule is final."""

    drawn: ClassVar[bool] = True  # whether steps differ in their loops
    needs_length: ClassVar[bool] = False  # whether it depends on how many steps the whole run has
    Arguments: ClassVar[type] = Truncation

    def __init__(self, loops: int, arguments: Any = None, seed: int = 0) -> None:
        self.loops, self.seed = loops, seed
        self.arguments = type(self).Arguments() if arguments is None else arguments

    @abstractmethod
    def loops_at(self, step: int, steps: int) -> int:
        """Return the loops of optimizer step `step`, counted from 1, of `steps`."""

    @property
    @abstractmethod
    def range(self) -> tuple[int, int]:
        """The fewest and the most loops that may come."""

    @property
    def lasting(self) -> tuple[int, int]:
        """The same of the end of training."""
        return self.range

    def depth(self, step: int, steps: int) -> Depth:
        """Return the depth of optimizer step `step`, counted from 1, of `steps`."""
        return self._truncated(self.loops_at(step, steps))

    @property
    def extremes(self) -> Collection[Depth]:
        """The depths that between them reach every parameter that any depth reaches."""
        fewest, most = self.range
        return [self._truncated(loops) for loops in sorted({fewest, min(fewest + 1, most), most})]

    def _truncated(self, loops: int) -> Depth:
        return Depth(loops, min(loops, self.arguments.with_gradient or loops))

    def _generator(self, step: int) -> np.random.Generator:
        """Return the source of a step's draw."""
        return np.random.default_rng((self.seed, step))


@final
class FixedDepth(DepthSchedule):
    """The same loops in every step (arXiv 2606.24898)."""

    drawn: ClassVar[bool] = False

    def loops_at(self, step: int, steps: int) -> int:
        """Return the one depth there is."""
        return self.loops

    @property
    def range(self) -> tuple[int, int]:
        """The one depth there is."""
        return self.loops, self.loops


@dataclass(frozen=True)
class Bounds(Truncation):
    """The fewest and the most loops."""

    low: int = 1
    high: int = 8

    def __post_init__(self) -> None:
        """Check that they are in order."""
        super().__post_init__()
        if not 1 <= self.low <= self.high:
            raise InputError(f"low is {self.low} and high {self.high}: give at least 1, and no less for high than low.")


@final
class UniformDepth(DepthSchedule):
    """Every depth from `low` to `high` is as likely as any other."""

    Arguments: ClassVar[type] = Bounds

    def loops_at(self, step: int, steps: int) -> int:
        """Draw the loops of a step."""
        return int(self._generator(step).integers(self.arguments.low, self.arguments.high, endpoint=True))

    @property
    def range(self) -> tuple[int, int]:
        """The bounds."""
        return self.arguments.low, self.arguments.high


@dataclass(frozen=True)
class HeavyTail(Truncation):
    """Mean depth (the model's loops by default), the spread of its logarithm, and the most (4 times the mean)."""

    mean: float | None = None
    sigma: float = 0.5
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.mean is not None and not 1 < self.mean < float("inf"):
            raise InputError(f"mean is {self.mean}: give a number above 1.")
        if not 0 <= self.sigma < float("inf"):
            raise InputError(f"sigma is {self.sigma}: give 0 or more.")
        if self.most is not None and self.most < max(2, self.mean or 0):
            raise InputError(f"most is {self.most}: give at least 2, and no less than the mean.")


@final
class PoissonDepth(DepthSchedule):
    """1 + Poisson(exp t) with t normal: log-normal Poisson (Huginn, arXiv 2502.05171), of mean `mean`.

    t has the mean log(mean - 1) - sigma^2 / 2 and the deviation sigma. Draws above `most` count as that, so that a step
    has a largest memory.
    """

    Arguments: ClassVar[type] = HeavyTail

    def __init__(self, loops: int, arguments: HeavyTail | None = None, seed: int = 0) -> None:
        super().__init__(loops, arguments, seed)
        self.mean = self.arguments.mean or float(loops)
        if self.mean <= 1:
            raise InputError("train.depth 'poisson' draws around the model's 1 loop: give a mean above 1.")
        self.most = self.arguments.most or round(4 * self.mean)

    def loops_at(self, step: int, steps: int) -> int:
        """Draw the loops of a step."""
        generator, sigma = self._generator(step), self.arguments.sigma
        rate = generator.lognormal(np.log(self.mean - 1) - sigma**2 / 2, sigma)
        return int(min(1 + generator.poisson(rate), self.most))

    @property
    def range(self) -> tuple[int, int]:
        """From 1 to `most`."""
        return 1, self.most


@dataclass(frozen=True)
class Growth(Truncation):
    """From `start` loops to `end` (the model's by default), over the first `share` of training."""

    start: int = 1
    end: int | None = None
    share: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.start < 1 or (self.end is not None and self.end < self.start):
            raise InputError(f"start is {self.start} and end {self.end}: give at least 1, and no less for the end.")
        if not 0 < self.share <= 1:
            raise InputError(f"share is {self.share}: give a number above 0, at most 1.")


@final
class GrowingDepth(DepthSchedule):
    """From `start` to `end`, each depth for an equal part of the first `share` of training, and `end` from then on."""

    needs_length: ClassVar[bool] = True
    Arguments: ClassVar[type] = Growth

    def loops_at(self, step: int, steps: int) -> int:
        """Return the loops of a step."""
        start, end = self.range
        return min(end, start + int((end - start + 1) * (step - 1) / (self.arguments.share * steps)))

    @property
    def range(self) -> tuple[int, int]:
        """Start and end."""
        return self.arguments.start, self.arguments.end or max(self.loops, self.arguments.start)

    @property
    def lasting(self) -> tuple[int, int]:
        """The end."""
        return self.range[1], self.range[1]


DEPTHS: Mapping[str, type[DepthSchedule]] = {
    "fixed": FixedDepth,
    "uniform": UniformDepth,
    "poisson": PoissonDepth,
    "growing": GrowingDepth,
}


def build_schedule(value: Named, config: LoopedConfig, seed: int) -> DepthSchedule:
    """Return the schedule that `train.depth` names, for a model.

    Raises `InputError` as `choose` does, for a model whose own depth is not trained in the end, and for weights of
    exits that a drawn depth may not have.
    """
    kind, arguments = choose("train.depth", value, DEPTHS)
    schedule = kind(config.num_loops, arguments, seed)
    fewest, most = schedule.lasting
    if not fewest <= config.num_loops <= most:
        ends = f"draws {fewest} to {most} loops" if fewest < most else f"ends at {most} loops"
        raise InputError(
            f"train.depth {ends}, and the model is to run {config.num_loops}, which would not be trained: change "
            "model.num_loops or train.depth."
        )
    if schedule.drawn and config.loop_weights is not None:
        raise InputError(
            "model.loop_weights are for exits of a fixed depth, and train.depth draws the depth of every step: leave "
            "one of them out."
        )
    return schedule
