"""A live model with a prelude, a recurrent core that sees its output at every loop, and a coda, behind four verbs."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from loopscale.errors import InputError
from loopscale.objective import Supervision
from loopscale.stepping import Logits, State, Tokens

Injected = Float[Tensor, "batch seq width"]  # the prelude may be narrower or wider than the state


class InjectedLoop(nn.Module, ABC):
    """A model made elsewhere, behind the four verbs: prelude -> core, core, ... -> coda.

    `embed` runs the prelude and remembers its output and the tokens, which every `step` and `readout` needs again; so
    these two belong to the latest `embed` call, and the batch cannot lose rows in between. Plain causal attention from
    position 0, no padding, no cache: whatever a live model keeps of a call is not touched.

    `num_loops` is the depth a call runs by default, `trained_loops` the (mean) depth the loss saw, `supervision` which
    exits it saw, `positions` how many tokens fit, `family` the name in messages.
    """

    family: ClassVar[str]
    model: Any  # the live model, whose methods are those of no class known here
    supervision: Supervision
    num_loops: int
    trained_loops: int
    positions: int

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)
        self._tokens: Tensor | None = None
        self._injected: Tensor | None = None

    @abstractmethod
    def prelude(self, tokens: Tokens) -> Injected:
        """Return what the core sees of the input at every loop, (batch, seq, width)."""

    @abstractmethod
    def initial_state(self, injected: Injected) -> State:
        """Return the state before the first loop, the same at every call."""

    @abstractmethod
    def core(self, h: State, k: int, injected: Injected, tokens: Tokens) -> State:
        """Apply the recurrent core once, injection included."""

    @abstractmethod
    def coda(self, z: State, tokens: Tokens) -> Logits:
        """Return the logits of a state."""

    def embed(self, input_ids: Tokens) -> State:
        """Run the prelude and return the state before the first loop (verb 1)."""
        if input_ids.shape[1] > self.positions:
            raise InputError(
                f"{input_ids.shape[1]} tokens are more than the {self.positions} positions this {self.family} has: "
                "shorten the input."
            )
        self._tokens, self._injected = input_ids, self.prelude(input_ids)
        return self.initial_state(self._injected)

    def step(self, h: State, k: int) -> State:
        """Apply the core once (verb 2)."""
        tokens, injected = self._latest(h)
        return self.core(h, k, injected, tokens)

    def carry(self, z: State, k: int) -> State:
        """Return the state as it is (verb 3): what is injected is the core's business."""
        return z

    def readout(self, z: State, k: int) -> Logits:
        """Decode a state through the coda (verb 4)."""
        tokens, _ = self._latest(z)
        return self.coda(z, tokens)

    def _latest(self, state: State) -> tuple[Tensor, Tensor]:
        """Return tokens and injected input of the latest `embed` call, which `state` must belong to."""
        if self._tokens is None or self._injected is None:
            raise InputError(f"{self.family}: call embed before step and readout, which need its tokens again.")
        if state.shape[:2] != self._tokens.shape:
            raise InputError(
                f"{self.family} needs the tokens of its latest embed call, {tuple(self._tokens.shape)}, at every loop, "
                f"and got a state of {tuple(state.shape[:2])}: keep the batch whole (no row may leave it early)."
            )
        return self._tokens, self._injected
