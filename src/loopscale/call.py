"""Call of a model on some tokens, as four plain functions.

Measurements speak of states and loops; what the verbs need besides is filled in here.
"""

from collections.abc import Iterator
from copy import copy
from typing import Any, final

from torch import Tensor

from loopscale.stepping import Context, Looped, State, Tokens, Verbs, with_context


@final
class Call:
    """The verbs of one call: its context, and what its loops received, are filled in.

    What a loop received is a constant for derivatives by a state.
    """

    def __init__(self, model: Looped | Verbs | Any, tokens: Tokens | None, context: Context | None = None) -> None:
        self.verbs = with_context(model)
        self.num_loops = self.verbs.num_loops
        if context is None:
            assert tokens is not None  # only a context may stand for them
            context = self.verbs.context(tokens)
        self.context = context
        self.received: dict[int, State] = {}

    @property
    def model(self) -> Any:
        """The model that is called."""
        return self.verbs.model

    def embed(self, input_ids: Tokens | None = None) -> Any:
        """Return what the first loop receives of the call's tokens."""
        assert self.context.tokens is not None
        return self.verbs.embed(self.context.tokens, self.context)

    def step(self, h: Any, k: int) -> Any:
        """Return the state of loop k."""
        if self.verbs.reads_received:
            self.received[k] = h.detach()
        return self.verbs.step(h, k, self.context)

    def carry(self, z: Any, k: int) -> Any:
        """Return what loop k + 1 receives of a state of loop k."""
        return self.verbs.carry(z, self.received.get(k), k, self.context)

    def readout(self, z: Any, k: int) -> Any:
        """Return the logits of exit k."""
        return self.verbs.readout(z, k, self.context)

    def exit_probability(self, z: Any, k: int) -> Any:
        """Return the gate's probability of leaving at loop k, of a model that has one."""
        return self.verbs.exit_probability(z, self.received.get(k), k, self.context)

    def states(self, num_loops: int | None = None) -> Iterator[State]:
        """Yield the state of every loop, as `run_loops` does."""
        h = self.embed()
        K = self.num_loops if num_loops is None else num_loops
        for k in range(K):
            z = self.step(h, k)
            yield z
            if k + 1 < K:
                h = self.carry(z, k)

    def rows(self, index: Tensor) -> "Call":
        """Return the same call on some rows of its batch, by indices or a mask; nothing is run again."""
        some = copy(self)
        some.context = self.verbs.rows(self.context, index)
        some.received = {k: h[index] for k, h in self.received.items()}
        return some
