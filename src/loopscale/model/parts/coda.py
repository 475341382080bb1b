"""Coda input: what the layers before a readout receive of a state. Those layers belong to the readout."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

from loopscale.mechanism import Effect
from loopscale.model.parts.part import IdentityLinear, Part, Sizes
from loopscale.stepping import State

Read = Callable[[State], State]


class CodaInput(Part):
    """(z, read) -> what the first layer of the coda receives; `read` is the readout, as it reads the exit at hand."""

    @abstractmethod
    def forward(self, z: State, read: Read) -> State:
        """Return what the coda receives."""

    @classmethod
    def entering(cls, coordinate: str, read: Effect) -> Effect:
        """Return whether a coordinate enters the coda, where `read` is what the readout does to it."""
        return cls.effects.get(coordinate, Effect.WEIGHTS)


@final
class StateInput(CodaInput):
    """z: logits are head(readout(coda(z)))."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def forward(self, z: State, read: Read) -> State:
        """Return `z`."""
        return z


@final
class ReadInput(CodaInput):
    """What the readout makes of z, so that it reads twice: head(readout(coda(readout(z)))) (Huginn, arXiv 2502.05171).

    What the readout hides never reaches the coda.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}

    def forward(self, z: State, read: Read) -> State:
        """Return the state as it is read."""
        return read(z)

    @classmethod
    def entering(cls, coordinate: str, read: Effect) -> Effect:
        """Return what the readout does."""
        return Effect.KEEPS if read == Effect.SEES else read


@final
class LinearInput(CodaInput):
    """C z: one map of the state (Parcae). C starts at the identity."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.WEIGHTS}

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.map = IdentityLinear(sizes.hidden_size)

    def forward(self, z: State, read: Read) -> State:
        """Return the map of the state, in its precision."""
        return self.map(z).to(z.dtype)


CODA_INPUTS: dict[str, type[CodaInput]] = {
    "state": StateInput,
    "readout": ReadInput,
    "linear": LinearInput,
}
