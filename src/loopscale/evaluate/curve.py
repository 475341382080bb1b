"""Depth curve: quality and scale of every exit, also past the trained depth, from one pass over the states."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final, overload

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.batches import Batches, Window, windows_of
from loopscale.call import Call
from loopscale.errors import InputError, unknown
from loopscale.evaluate.statistics import Counts, standard_error, token_mean
from loopscale.facts import Reads, facts_of
from loopscale.processes import each
from loopscale.state import norm, room
from loopscale.stepping import Looped, evaluating
from loopscale.system.precision import perplexity

SAFE_RELATIVE_PERPLEXITY = 1.01
PAST_TRAINING = 3  # the curve goes to this many times the trained depth


@final
@dataclass(frozen=True)
class ExitPoint:
    """One exit (from 1): nats and perplexity per token, bits per byte, mean ||z||_2; standard errors over windows.

    Costs are there where they were measured: operations per token, and up to the trained depth tokens per second and
    latency in seconds at `batch_size` windows.
    """

    exit: int
    cross_entropy: float
    cross_entropy_se: float
    perplexity: float
    perplexity_se: float
    bits_per_byte: float | None
    norm: float
    norm_se: float
    flops: float | None = None
    tokens_per_second: float | None = None
    latency: float | None = None
    batch_size: int | None = None


@final
@dataclass(frozen=True)
class SafeRange:
    """Which exits are about as good as the trained depth, and where the state's norm goes.

    Exits `first` .. `last` lie around the trained depth and keep its perplexity times `relative_perplexity`.
    `turns_up_at` is the first deeper exit that does not, None if the curve never turns up. `norm_growth` is the mean of
    log(norm_{k+1} / norm_k) past the trained depth, in e-folds per loop (NaN if the curve ends there).
    """

    first: int
    last: int
    best: int
    turns_up_at: int | None
    relative_perplexity: float
    norm_trained: float
    norm_deepest: float
    norm_growth: float


@final
@dataclass(frozen=True)
class DepthReport:
    """What a curve says of the exits of one model under one reading, as it is kept in files."""

    reading: str
    trained_loops: int
    tokens: int
    windows: int
    exits: tuple[ExitPoint, ...]
    safe_range: SafeRange


@final
@dataclass(frozen=True)
class DepthCurve(Sequence[ExitPoint]):
    """The exits of one model under one reading; `curve[k]` is exit k + 1.

    `losses` and `norms` are sums over the scored tokens of each window, (exits, windows), and `tokens` their counts,
    all float64: what intervals and comparisons between models are made of. `fill` is how much of the room that numbers
    have (`loopscale.state.room`) the largest of each exit's state takes, where that was measured.
    """

    reading: str
    trained_loops: int
    losses: Float[Tensor, "exits windows"]
    norms: Float[Tensor, "exits windows"]
    tokens: Counts
    bytes_per_token: float | None = None
    fill: Float[Tensor, " exits"] | None = None

    @cached_property
    def points(self) -> tuple[ExitPoint, ...]:
        """The exits."""
        columns = (
            f(sums, self.tokens).tolist() for sums in (self.losses, self.norms) for f in (token_mean, standard_error)
        )
        return tuple(
            ExitPoint(
                exit=k + 1,
                cross_entropy=ce,
                cross_entropy_se=ce_se,
                perplexity=perplexity(ce),
                perplexity_se=perplexity(ce) * ce_se,
                bits_per_byte=None if self.bytes_per_token is None else ce / math.log(2) / self.bytes_per_token,
                norm=norm,
                norm_se=norm_se,
            )
            for k, (ce, ce_se, norm, norm_se) in enumerate(zip(*columns, strict=True))
        )

    @overload
    def __getitem__(self, index: int) -> ExitPoint: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ExitPoint, ...]: ...
    def __getitem__(self, index: int | slice) -> ExitPoint | tuple[ExitPoint, ...]:
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    def safe_range(self, relative_perplexity: float = SAFE_RELATIVE_PERPLEXITY) -> SafeRange:
        """Return the exits around the trained depth that keep its perplexity up to a factor, and the norm's course."""
        K = min(self.trained_loops, len(self))
        limit = self[K - 1].cross_entropy + math.log(relative_perplexity)
        bad = [p.exit for p in self if not p.cross_entropy <= limit]  # a NaN is bad
        first = max((k for k in bad if k < K), default=0) + 1
        turns_up = min((k for k in bad if k > K), default=None)
        past = len(self) - K
        return SafeRange(
            first=first,
            last=len(self) if turns_up is None else turns_up - 1,
            best=min(self, key=lambda p: (math.isnan(p.cross_entropy), p.cross_entropy)).exit,
            turns_up_at=turns_up,
            relative_perplexity=relative_perplexity,
            norm_trained=self[K - 1].norm,
            norm_deepest=self[-1].norm,
            norm_growth=_log_ratio(self[-1].norm, self[K - 1].norm) / past if past else math.nan,
        )

    def report(self) -> DepthReport:
        """Return the exits and their safe range, without the windows."""
        return DepthReport(
            reading=self.reading,
            trained_loops=self.trained_loops,
            tokens=int(self.tokens.sum()),
            windows=self.tokens.numel(),
            exits=self.points,
            safe_range=self.safe_range(),
        )


def depth_curve(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None = None,
    reading: str = "trained",
    bytes_per_token: float | None = None,
) -> DepthCurve:
    """Return the curve of exits 1..`max_loops` (default: 3 times the trained depth) under one reading.

    See `depth_curves`. Raises `InputError` for a reading the model does not have.
    """
    return _curves(model, batches, max_loops, (reading,), bytes_per_token)[reading]


def depth_curves(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None = None,
    bytes_per_token: float | None = None,
) -> dict[str, DepthCurve]:
    """Return the curve under every reading the model has, from one pass over the states.

    Reading `trained` is what the loss saw. A `final_rmsnorm` model also has `final`: every exit normalised as the last.
    One state is held at a time, so memory does not grow with `max_loops`. `bytes_per_token` of the corpus gives bits
    per byte, which compares models with different tokenizers.

    Raises `InputError` for fewer than 1 loop, malformed batches or none.
    """
    return _curves(model, batches, max_loops, None, bytes_per_token)


def _curves(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None,
    wanted: Sequence[str] | None,
    bytes_per_token: float | None,
) -> dict[str, DepthCurve]:
    facts = facts_of(model)
    for name in wanted or ():
        if name not in facts.readings:
            raise unknown("reading", name, facts.readings)
    readings = tuple(wanted or facts.readings)
    trained = facts.trained_depth
    loops = PAST_TRAINING * trained if max_loops is None else max_loops
    if not isinstance(loops, int) or loops < 1:
        raise InputError(f"max_loops is {loops}: evaluate at least 1 loop.")
    with evaluating(model):
        windows = windows_of(model, batches, facts.padding)
        parts = list(each(windows, lambda window: dict(_batch_sums(model, window, loops, readings))))
    sums = {name: torch.cat([part[name] for part in parts], -1).cpu().double() for name in parts[0]}
    fill = sums["fill"].amax(-1)
    return {
        name: DepthCurve(name, trained, sums[name], sums["norm"], sums["tokens"], bytes_per_token, fill)
        for name in readings
    }


def _batch_sums(model: Looped, window: Window, loops: int, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield named sums over each window's scored tokens, (exits, batch); nothing is synchronised with the device."""
    call = Call(model, window.inputs)
    readings = {name: Reads(call).readings[name] for name in names}
    rows: Mapping[str, list[Tensor]] = {name: [] for name in (*readings, "norm", "fill")}
    for k, z in enumerate(call.states(loops)):
        for name, read in readings.items():
            rows[name].append(read(z, k, window.labels).sum(-1))
        rows["norm"].append(torch.where(window.counted, norm(z), 0.0).sum(-1))
        rows["fill"].append(
            torch.where(window.counted, z.abs().amax(-1).float(), 0.0).amax(-1) / room(z.dtype, z.shape[-1])
        )
    yield "tokens", window.counted.sum(-1)
    for name, values in rows.items():
        yield name, torch.stack(values)


def _log_ratio(a: float, b: float) -> float:
    """Return log(a / b); NaN where one of them is 0 or not finite."""
    return math.log(a / b) if 0 < a < math.inf and 0 < b < math.inf else math.nan
