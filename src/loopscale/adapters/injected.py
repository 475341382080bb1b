"""Injected loop: a live model whose core sees the prelude's output at every loop, with a coda, behind the verbs."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from loopscale.errors import InputError
from loopscale.objective import Supervision
from loopscale.stepping import Context, Injected, Logits, State, Tokens


class InjectedLoop(nn.Module, ABC):
    """A model made elsewhere, behind the four verbs: prelude -> core, core, ... -> coda.

    `context` runs the prelude once; its output and the tokens are what every `step` and `readout` reads again. Plain
    causal attention from position 0, no padding, no cache: whatever a live model keeps of a call is not touched.

    `num_loops` is the depth a call runs by default, `trained_loops` the (mean) depth the loss saw, `supervision` which
    exits it saw, `positions` how many tokens fit, `family` the name in messages.
    """

    family: ClassVar[str]
    reads_received: ClassVar[bool] = False
    model: Any  # the live model, whose methods are those of no class known here
    supervision: Supervision
    num_loops: int
    trained_loops: int
    positions: int

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

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

    def context(self, tokens: Tokens) -> Context:
        """Run the prelude; return tokens and what it made of them, which every loop and the coda read again."""
        if tokens.shape[1] > self.positions:
            raise InputError(
                f"{tokens.shape[1]} tokens are more than the {self.positions} positions this {self.family} has: "
                "shorten the input."
            )
        return Context(tokens, self.prelude(tokens))

    def embed(self, input_ids: Tokens, context: Context | None = None) -> State:
        """Return the state before the first loop (verb 1)."""
        context = self.context(input_ids) if context is None else context
        assert context.injected is not None  # `context` fills it
        return self.initial_state(context.injected)

    def step(self, h: State, k: int, context: Context | None = None) -> State:
        """Apply the core once (verb 2)."""
        tokens, injected = self._read(context, h)
        return self.core(h, k, injected, tokens)

    def carry(self, z: State, k: int, context: Context | None = None, h: State | None = None) -> State:
        """Return the state as it is (verb 3): what is injected is the core's business."""
        return z

    def readout(self, z: State, k: int, context: Context | None = None) -> Logits:
        """Decode a state through the coda (verb 4)."""
        return self.coda(z, self._read(context, z)[0])

    def _read(self, context: Context | None, state: State) -> tuple[Tokens, Injected]:
        """Return the tokens of a call and what the prelude made of them, which `state` must belong to."""
        if context is None or context.tokens is None or context.injected is None:
            raise InputError(
                f"{self.family} reads its input again in every loop: make context = model.context(ids) and give it to "
                "every verb as its last argument."
            )
        if state.shape[:2] != context.tokens.shape:
            raise InputError(
                f"a state of {tuple(state.shape[:2])} tokens is none of a call on {tuple(context.tokens.shape)}: rows "
                "that leave a batch leave its context too, context.rows(index)."
            )
        return context.tokens, context.injected
