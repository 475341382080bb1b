"""Findings of an audit: plain dataclasses that become JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loopscale.audit.verdict import Kind, Thresholds
from loopscale.storage import plain

ByLoop = tuple[float, ...]


@dataclass(frozen=True)
class ScaleStats:
    """The scale of one loop's states over tokens: means, and quantiles of the L2 norm.

    norm: mean ||z||_2 (the paper's norm); scale: mean RMS.
    """

    norm: float
    scale: float
    norm_median: float
    norm_p99: float
    norm_max: float


@dataclass(frozen=True)
class CoordinateReport:
    """One coordinate's figures, means over tokens; lists have one entry per loop. Loops count from 1 in `seen_by`.

    visibility: share of the gradient of exit k's cross-entropy, through readout k alone, that moves the coordinate;
    nats_per_unit: the loss's mean change per unit (scale: per e-fold), signed, and abs_nats_per_unit its magnitude.
    seen: the same share for the losses beside the exits' (a penalty, an exit gate), by their name.
    retention: d value(z_{k+1}) / d value(z_k), all tokens moved together, as the paper's ds_{k+1}/ds_k; the last entry
    is one loop past the trained depth. log_retention: d log / d log, for lengths. carry_retention: through carry alone.
    retained: the geometric mean of retention over trained loops.
    value: mean per loop; drift: mean change to the next loop (of the logarithm, for lengths).
    left_out: tokens per loop that a figure (a loss's name, retention, drift) leaves out, where it leaves out any:
    those whose gradient is rounding, or by whose value cannot be divided. The verdict reads every figure without its
    most extreme token; one_token_decides: with that token it would be another.
    """

    verdict: Kind
    seen_by: Mapping[str, tuple[int, ...]]
    removed_by: str | None
    remedy: str | None
    visibility: ByLoop
    nats_per_unit: ByLoop
    abs_nats_per_unit: ByLoop
    retention: ByLoop
    carry_retention: ByLoop
    retained: float
    value: ByLoop
    drift: ByLoop
    unit: str
    log_retention: ByLoop | None = None
    seen: Mapping[str, ByLoop] = field(default_factory=dict)
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    one_token_decides: bool = False

    @property
    def penalty_visibility(self) -> ByLoop | None:
        """Share of the norm penalty's gradient, where there is one."""
        return self.seen.get("norm penalty")

    @property
    def gate_visibility(self) -> ByLoop | None:
        """Share of the exit gate's gradient, where there is one."""
        return self.seen.get("exit gate")


@dataclass(frozen=True)
class AuditReport:
    """Every coordinate's figures and verdict, and what they were measured on."""

    num_loops: int
    supervision: str
    supervised_loops: tuple[int, ...]
    tokens: int
    hidden_size: int
    thresholds: Thresholds
    cross_entropy: ByLoop
    scale: tuple[ScaleStats, ...]
    coordinates: Mapping[str, CoordinateReport]
    notes: tuple[str, ...] = field(default=())

    @property
    def blind_spots(self) -> tuple[str, ...]:
        """Return the coordinates that no loss sees and the recurrence retains."""
        return tuple(name for name, c in self.coordinates.items() if c.verdict == "blind_spot")

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings, lists and dicts only."""
        return {**plain(self), "blind_spots": list(self.blind_spots)}
