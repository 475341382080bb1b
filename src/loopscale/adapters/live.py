"""Live loop: a model made elsewhere, run by its own code behind the four verbs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from loopscale.adapters.padding import Real, from_front, padding_mask, to_front
from loopscale.errors import InputError
from loopscale.objective import Supervision
from loopscale.stepping import Context, Injected, Logits, State, Tokens


class LiveLoop(nn.Module, ABC):
    """A model made elsewhere: `prelude` once, `core` in every loop, `decode` at every exit.

    `context` runs the prelude; its output and the tokens are what every `step` and `readout` reads again. Plain causal
    attention from each row's first token, no cache: whatever a live model keeps of a call is not touched. The methods
    to write are given rows that begin with their first token.

    `num_loops` is the depth a call runs by default, `trained_loops` the (mean) depth the loss saw, `supervision` which
    exits it saw, `positions` how many tokens fit, `family` the name in messages. `parts` names the channels of a state
    that is several states side by side: each is then audited on its own as well.
    """

    family: ClassVar[str]
    reads: ClassVar[str] = "needs the tokens of its call in every loop"  # what the verbs need a context for
    reads_received: ClassVar[bool] = False
    model: Any  # the live model, whose methods are those of no class known here
    supervision: Supervision
    num_loops: int
    trained_loops: int
    positions: int
    parts: Mapping[str, slice]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.parts = {}
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
    def decode(self, z: State, injected: Injected, tokens: Tokens) -> Logits:
        """Return the logits of a state."""

    def context(self, tokens: Tokens, attention_mask: Tensor | None = None) -> Context:
        """Run the prelude; return tokens and what it made of them, which every loop and exit reads again.

        `attention_mask` (batch, seq) tells tokens from padding at the ends of a row. Rows padded on their left are run
        from their first token on. Raises `InputError` for a mask with holes, or more tokens than positions.
        """
        if tokens.shape[1] > self.positions:
            raise InputError(
                f"{tokens.shape[1]} tokens are more than the {self.positions} positions this {self.family} has: "
                "shorten the input."
            )
        real = padding_mask(tokens, attention_mask, self.family)
        return Context(tokens, self.prelude(to_front(tokens, real)), real)

    def embed(self, input_ids: Tokens, context: Context | None = None) -> State:
        """Return the state before the first loop (verb 1)."""
        context = self.context(input_ids) if context is None else context
        assert context.injected is not None  # `context` fills it
        return from_front(self.initial_state(context.injected), _real(context))

    def step(self, h: State, k: int, context: Context | None = None) -> State:
        """Apply the core once (verb 2)."""
        tokens, injected, real = self._read(context, h)
        return from_front(self.core(to_front(h, real), k, injected, tokens), real)

    def carry(self, z: State, k: int, context: Context | None = None, h: State | None = None) -> State:
        """Return the state as it is (verb 3): what is injected is the core's business."""
        return z

    def readout(self, z: State, k: int, context: Context | None = None) -> Logits:
        """Decode a state (verb 4)."""
        tokens, injected, real = self._read(context, z)
        return from_front(self.decode(to_front(z, real), injected, tokens), real)

    def _read(self, context: Context | None, state: State) -> tuple[Tokens, Injected, Real | None]:
        """Return the tokens of a call, what the prelude made of them, which `state` must belong to, and the padding.

        Both begin with the first token of their row.
        """
        if context is None or context.tokens is None or context.injected is None:
            raise InputError(
                f"{self.family} {self.reads}: make context = model.context(ids) and give it to every verb as its last "
                "argument."
            )
        if state.shape[:2] != context.tokens.shape:
            raise InputError(
                f"a state of {tuple(state.shape[:2])} tokens is none of a call on {tuple(context.tokens.shape)}: rows "
                "that leave a batch leave its context too, context.rows(index)."
            )
        real = _real(context)
        return to_front(context.tokens, real), context.injected, real


def _real(context: Context) -> Real | None:
    """Return which tokens are no padding, as `LiveLoop.context` left it."""
    assert isinstance(context.attention_mask, Tensor | None)
    return context.attention_mask
