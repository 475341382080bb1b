"""Readout: what the LM head sees of a state."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from loopscale.errors import InputError
from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part, Sizes, build_norm
from loopscale.state import energy
from loopscale.stepping import State

SEES_ALL: Mapping[str, Effect] = {"scale": Effect.SEES, "mean": Effect.SEES}
HIDES_SCALE: Mapping[str, Effect] = {"scale": Effect.HIDES, "mean": Effect.SEES}


class Readout(Part):
    """(z, k, last) -> what the head sees at exit k; `last` says whether that is the final exit of the trained depth.

    `readings` are the ways in which an exit can be read, by name, with the `last` that it is told (None: as trained).
    """

    reads_last: ClassVar[bool] = False  # whether the final exit is read in another way
    readings: ClassVar[Mapping[str, bool | None]] = {"trained": None}
    norm_kind: ClassVar[str | None] = None  # of a norm that it holds as `norm`, which a carry may share

    @abstractmethod
    def forward(self, z: State, k: int, last: bool) -> State:
        """Return what the head sees."""

    @classmethod
    def effects_at(cls, last: bool) -> Mapping[str, Effect]:
        """Return the effects at the final exit, or at one before it."""
        return cls.effects


@final
class RawReadout(Readout):
    """z: the head sees every coordinate that it does not map to zero."""

    effects: ClassVar[Mapping[str, Effect]] = SEES_ALL

    def forward(self, z: State, k: int, last: bool) -> State:
        """Return `z`."""
        return z


class NormReadout(Readout):
    """A readout with a norm, of the kind that the class says."""

    norm_kind: ClassVar[str]

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norm = build_norm(self.norm_kind, sizes)


@final
class RmsNormReadout(NormReadout):
    """N(z): scale is hidden (arXiv 2606.24898, lemma 1)."""

    effects: ClassVar[Mapping[str, Effect]] = HIDES_SCALE
    norm_kind: ClassVar[str] = "rmsnorm"

    def forward(self, z: State, k: int, last: bool) -> State:
        """Return norm(z)."""
        return self.norm(z)


@final
class LayerNormReadout(NormReadout):
    """N(z - mean z): scale and mean are hidden."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.HIDES, "mean": Effect.HIDES}
    norm_kind: ClassVar[str] = "layernorm"

    def forward(self, z: State, k: int, last: bool) -> State:
        """Return norm(z)."""
        return self.norm(z)


@final
class FinalRmsNormReadout(NormReadout):
    """z at loops 1..K-1, N(z) at the last: the intermediate exits keep scale visible (arXiv 2606.24898).

    An exit can also be read as the last one is, `final`.
    """

    effects: ClassVar[Mapping[str, Effect]] = HIDES_SCALE
    norm_kind: ClassVar[str] = "rmsnorm"
    reads_last: ClassVar[bool] = True
    readings: ClassVar[Mapping[str, bool | None]] = {"trained": None, "final": True}

    @classmethod
    def effects_at(cls, last: bool) -> Mapping[str, Effect]:
        """Return the effects of the norm at the final exit, those of a raw readout before."""
        return HIDES_SCALE if last else SEES_ALL

    def forward(self, z: State, k: int, last: bool) -> State:
        """Return norm(z) at the final exit and `z` before."""
        return self.norm(z) if last else z


@dataclass(frozen=True)
class Power:
    """How much of the scale the head sees, and the scale at which it sees the state as it is.

    Args:
        alpha: 1 is the raw state; towards 0 only its direction is left.
        reference: scale s_ref that is read unchanged.
    """

    alpha: float = 0.5
    reference: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}: give a number above 0 and up to 1.")
        if not 0 < self.reference < float("inf"):
            raise InputError(f"reference is {self.reference}: give a scale above 0.")


@final
class PowerReadout(Readout):
    """s_ref^(1 - alpha) s^alpha u: scale is seen, compressed. Between raw (alpha = 1) and a norm without weight (0)."""

    effects: ClassVar[Mapping[str, Effect]] = SEES_ALL
    Arguments: ClassVar[type] = Power

    def __init__(self, sizes: Sizes, arguments: Power) -> None:
        super().__init__(sizes, arguments)
        self.eps = sizes.rms_norm_eps

    def forward(self, z: State, k: int, last: bool) -> State:
        """Return the state with its scale to the power alpha."""
        power = (self.arguments.alpha - 1) / 2  # of s^2, which is smooth at 0
        gain = (energy(z)[..., None] / self.arguments.reference**2 + self.eps) ** power
        return (z * gain).to(z.dtype)


READOUTS: dict[str, type[Readout]] = {
    "raw": RawReadout,
    "rmsnorm": RmsNormReadout,
    "layernorm": LayerNormReadout,
    "final_rmsnorm": FinalRmsNormReadout,
    "power": PowerReadout,
}
