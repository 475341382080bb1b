"""Injection: how the input enters a loop again, before its layers."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part
from loopscale.stepping import Context, State


class Injection(Part):
    """(h, context) -> what the layers of the loop receive. `context.injected` is e, of the shape of h."""

    reads_injected: ClassVar[bool] = True

    @abstractmethod
    def forward(self, h: State, context: Context) -> State:
        """Return the state with the input in it."""


@final
class NoInjection(Injection):
    """h: the input enters the first loop alone."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    reads_injected: ClassVar[bool] = False

    def forward(self, h: State, context: Context) -> State:
        """Return `h`."""
        return h


INJECTIONS: dict[str, type[Injection]] = {"none": NoInjection}
