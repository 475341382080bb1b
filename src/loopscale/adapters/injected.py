"""Injected loop: a live model whose core sees the prelude's output at every loop, with a coda, behind the verbs."""

from abc import abstractmethod
from typing import ClassVar

from loopscale.adapters.live import LiveLoop
from loopscale.stepping import Injected, Logits, State, Tokens

__all__ = ["Injected", "InjectedLoop"]


class InjectedLoop(LiveLoop):
    """A live model of the form prelude -> core, core, ... -> coda: write these three, and `initial_state`."""

    reads: ClassVar[str] = "reads its input again in every loop"

    @abstractmethod
    def coda(self, z: State, tokens: Tokens) -> Logits:
        """Return the logits of a state."""

    def decode(self, z: State, injected: Injected, tokens: Tokens) -> Logits:
        """Decode a state through the coda."""
        return self.coda(z, tokens)
