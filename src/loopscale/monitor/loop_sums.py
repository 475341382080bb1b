"""Statistics of the states of one forward: what is kept of each loop while it runs, and the figures made of it.

Sums and maxima are kept, so that processes can add them up; nothing is read back from the device before the figures
are made.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.hf import untransformed
from loopscale.monitor.token_masks import along
from loopscale.state import angular_step, norm
from loopscale.system.precision import widened

TOKENS = 4096  # of a forward, evenly spread, that all figures but the largest magnitude are taken from
SUMS = ("tokens", "norm", "turned", "moved")  # of one loop; what is turned and moved is its state by the next loop
Packed = tuple[Tensor, Tensor, Tensor, Tensor]  # sums, energies of channels, largest magnitudes, visibility and tokens
Sample = Float[Tensor, "1 tokens hidden"]  # as a batch of one row


def local(z: Any) -> Tensor:
    """Return this process's part of a state as a plain tensor of whole tokens: of a DTensor, a nested or mapped one."""
    if z.is_nested:
        return torch.cat(z.unbind())
    if not hasattr(z, "to_local"):
        return untransformed(z)
    whole = any(placement.is_shard(z.ndim - 1) or placement.is_partial() for placement in z.placements)
    return z.full_tensor() if whole else z.to_local()


@final
class Tally:
    """Sums over the tokens of one forward, loop by loop: `add` is called with each state in turn."""

    def __init__(self, hidden: int, dtype: torch.dtype, every: int, real: Tensor | None, unfit: Tensor | None) -> None:
        self.hidden, self.dtype, self.every, self.real, self.unfit = hidden, dtype, every, real, unfit
        self.sums: list[dict[str, Tensor]] = []
        self.largest: list[Tensor] = []
        self.energies: list[Float[Tensor, " hidden"]] = []
        self._before: Sample | None = None
        self.visibility: Tensor | None = None  # of the last loop's scale: sum of shares, and tokens

    @classmethod
    def like(cls, z: Tensor, mask: Tensor | None, tokens: int) -> "Tally":
        """Return an empty tally for states like this one. A mask (batch, seq) that fits it leaves out padded tokens."""
        every = max(1, -(-(z.numel() // z.shape[-1]) // tokens))
        flat = None if mask is None else along(mask, tuple(z.shape[:-1]))
        real = None if flat is None else flat[None, ::every].to(device=z.device, dtype=torch.float32)
        return cls(z.shape[-1], z.dtype, every, real, mask if real is None else None)

    @torch.no_grad()
    def add(self, z: Tensor) -> None:
        """Count the state of the next loop, (..., hidden). It may be overwritten afterwards."""
        z = z.detach()
        sample = self.sample(z).to(widened(z.dtype), copy=True)
        weight = sample.new_ones(sample.shape[:2]) if self.real is None else self.real.to(sample.dtype)
        length = norm(sample)
        if self._before is not None:
            turned, moved = angular_step(self._before, sample), norm(sample - self._before)
            moved = moved / norm(self._before).clamp_min(torch.finfo(moved.dtype).tiny)
            self.sums[-1] |= {"turned": _sum(turned, weight), "moved": _sum(moved, weight)}
        self.sums.append({"tokens": weight.sum(), "norm": _sum(length, weight)})
        self.energies.append((sample.square() * weight[..., None]).sum((0, 1)))
        low, high = torch.aminmax(z)
        self.largest.append(torch.maximum(-low, high).to(sample.dtype))
        self._before = sample

    @torch.no_grad()
    def see_gradient(self, gradient: Tensor) -> None:
        """Count how much of the loss's gradient at the state added last lies along that state."""
        assert self._before is not None
        z, g = self._before, self.sample(local(gradient)).to(self._before.dtype)
        known = torch.finfo(gradient.dtype)
        largest = g.abs().amax(-1)
        told = largest >= known.tiny / known.eps  # below, a gradient has too few digits to have a direction
        if self.real is not None:
            told = told & (self.real > 0)
        g = g / torch.where(told, largest, 1.0)[..., None]  # its squares may underflow
        share = (g * z).sum(-1).abs() / (norm(g) * norm(z)).clamp_min(torch.finfo(g.dtype).tiny)
        self.visibility = torch.stack([torch.where(told, share, 0.0).sum(), told.sum().to(share.dtype)])

    def sample(self, z: Tensor) -> Sample:
        """Return evenly spread tokens of a state."""
        return z.reshape(1, -1, z.shape[-1])[:, :: self.every]

    def packed(self) -> Packed:
        """Return sums (loops, `SUMS`), energies (loops, hidden), largest magnitudes (loops) and visibility (2)."""
        zero = self.largest[0].new_zeros(())
        sums = torch.stack([torch.stack([each.get(name, zero) for name in SUMS]) for each in self.sums])
        visibility = zero.new_zeros(2) if self.visibility is None else self.visibility
        return sums, torch.stack(self.energies), torch.stack(self.largest), visibility


def _sum(values: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, values * weight, 0.0).sum()


@final
@dataclass(frozen=True)
class Reading:
    """Figures of one step, a tuple over loops k = 1..K; `angular_step` and `update` are those of loop k to k + 1.

    scale: RMS of a token's state. norm: its L2 norm. angular_step: how far the direction of unit RMS turns, at most
    2 sqrt(hidden). update: length of the change over the length of the state. largest_channel: RMS of the strongest
    channel over that of all, and `channel` is which. bf16_range and float16_range: largest magnitude over the dtype's.
    visibility: share of the loss's gradient at the last loop's state that lies along it, None where it was not read.
    cost: share of the time so far that went into watching.
    """

    step: int
    tokens: int
    dtype: torch.dtype
    hidden: int
    scale: tuple[float, ...]
    norm: tuple[float, ...]
    angular_step: tuple[float, ...]
    update: tuple[float, ...]
    largest_channel: tuple[float, ...]
    channel: tuple[int, ...]
    largest: tuple[float, ...]
    visibility: float | None
    cost: float

    @property
    def bf16_range(self) -> tuple[float, ...]:
        """Largest magnitude of each loop over the largest that bfloat16 has."""
        return self.share_of(torch.bfloat16)

    @property
    def float16_range(self) -> tuple[float, ...]:
        """Largest magnitude of each loop over the largest that float16 has."""
        return self.share_of(torch.float16)

    def share_of(self, dtype: torch.dtype) -> tuple[float, ...]:
        """Return the largest magnitude of each loop over the largest that `dtype` has."""
        return tuple(value / torch.finfo(dtype).max for value in self.largest)

    def scalars(self) -> dict[str, float]:
        """Return the figures under their stable names: `loop/norm/1`, ..., `loop/visibility/K`, `loop/cost`."""
        named = {f"loop/{name}/{k}": float(value) for name in SERIES for k, value in enumerate(getattr(self, name), 1)}
        if self.visibility is not None:
            named[f"loop/visibility/{len(self.norm)}"] = self.visibility
        return {**named, "loop/cost": self.cost}


SERIES = ("norm", "scale", "angular_step", "update", "largest_channel", "bf16_range", "float16_range")


def reading_of(packed: Packed, dtype: torch.dtype, step: int, cost: float) -> Reading:
    """Return the figures of sums over tokens; everything comes from the device at once."""
    sums, energies, largest, visibility = packed
    hidden = energies.shape[1]
    mean = energies.mean(1).clamp_min(torch.finfo(energies.dtype).tiny)
    strongest, channel = energies.max(1)
    parts = [sums, (strongest / mean).sqrt(), channel, largest, visibility]
    values = iter(torch.cat([part.to(energies.dtype).reshape(-1) for part in parts]).tolist())  # all at once
    rows = [dict(zip(SUMS, (next(values) for _ in SUMS), strict=True)) for _ in range(len(sums))]
    ratio, which, most = ([next(values) for _ in rows] for _ in range(3))
    seen, tokens = next(values), next(values)
    norms, turned, moved = (
        tuple(row[name] / max(row["tokens"], 1.0) for row in rows) for name in ("norm", "turned", "moved")
    )
    return Reading(
        step=step,
        tokens=int(rows[0]["tokens"]),
        dtype=dtype,
        hidden=hidden,
        scale=tuple(value / hidden**0.5 for value in norms),
        norm=norms,
        angular_step=turned[:-1],
        update=moved[:-1],
        largest_channel=tuple(ratio),
        channel=tuple(map(int, which)),
        largest=tuple(most),
        visibility=seen / tokens if tokens else None,
        cost=cost,
    )
