"""Session of one decoding call: its rows, their cache, and any loops over any new tokens of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from loopscale.decode.cache import Front, LoopCache
from loopscale.hf import attention_implementation, execution_device, mask_of
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Context, Injected, Positions, State, Tokens

SHARED_FROM = 2_000_000  # weights: below, waiting for each other costs threads more than sharing saves them


@dataclass(frozen=True)
class Window:
    """Where new tokens lie: `length` columns of every row from `start` on, and what a step needs to know of that."""

    start: int
    length: int
    context: Context


@final
class Session:
    """Runs loops of a model over new tokens of a batch, on one preallocated cache.

    Columns count from the padded left edge; `pads` says how many of them are padding in every row. Positions are those
    of the real tokens, as `generate` has them. `passes` counts applications of the stack, `token_loops` those times
    the tokens they were applied to (per row of the batch).
    """

    def __init__(self, model: LoopedForCausalLM, pads: list[int], capacity: int, num_loops: int) -> None:
        self.model = model
        self.num_loops = num_loops
        self.cache = LoopCache(model, len(pads), capacity, num_loops)
        self.fronts: dict[tuple[int, int], Front] = {}
        self.padded = any(pads)
        device = execution_device(model)
        self.pads = torch.tensor(pads, device=device)[:, None]
        self.columns = torch.arange(capacity, device=device)
        room = model.config.max_position_embeddings
        # places without a token may lie behind the end of a learned table
        self.last_position = room - 1 if model.model.embed_positions is not None and capacity > room else None
        self.additive = attention_implementation(model.config) == "eager"
        self.passes = 0
        self.token_loops = 0

    def window(self, ids: Tokens, start: int, injected: Injected | None = None) -> Window:
        """Return the window of new tokens in every row, from column `start` on; their input e is made, or given."""
        mask: Tensor | None = None
        length = ids.shape[1]
        stop = start + length
        columns = positions = self.columns[None, start:stop]
        if self.padded:
            positions = (columns - self.pads).clamp_min(0)
            mask = self._unpadded(columns.expand(len(self.pads), -1), self.pads, stop)
        elif length > 1 and (start > 0 or self.additive):  # sdpa knows plain causal attention from 0 without a mask
            mask = (self.columns[:stop] <= columns[..., None])[:, None]
        context = self._context(ids, mask, positions, self.cache, injected)
        if injected is None:
            self.cache.cursor.move(start, length)
            context = self.model.model.with_input(context)
        return Window(start, length, context)

    def embed(self, ids: Tokens, window: Window) -> State:
        """Return what loop 0 receives of the window's tokens."""
        return self.model.embed(ids, window.context)

    def run(self, h: State, window: Window, first: int, stop: int) -> State:
        """Run loops `first` .. `stop` - 1 on what loop `first` receives; return the state of the last."""
        self.cache.cursor.move(window.start, window.length)
        self.passes += stop - first
        self.token_loops += (stop - first) * window.length
        z = self.model.step(h, first, window.context)
        for k in range(first + 1, stop):
            h = self.model.carry(z, k - 1, window.context, h)
            z = self.model.step(h, k, window.context)
        return z

    def embed_at(
        self, ids: Int[Tensor, "batch 1"], columns: Int[Tensor, "batch 1"], stop: int
    ) -> tuple[State, Injected | None]:
        """Return what loop 0 receives of one token per row, each at its own column below `stop`, and their input e.

        None in place of e: this model has no use for it later.
        """
        self.cache.cursor.spread(columns, stop)
        context = self.model.model.with_input(self._scattered(ids, columns, stop, self.pads, self.cache))
        return self.model.embed(ids, context), context.injected

    def run_front(
        self,
        h: State,
        injected: Injected | None,
        ids: Int[Tensor, "rows 1"],
        loops: range,
        columns: Int[Tensor, "rows 1"],
        stop: int,
    ) -> tuple[State, State]:
        """Run neighbouring loops side by side, every loop on one token of its own per row of the batch: one pass.

        Returns the states and what they carry on. `h` is what the loops receive, one after another, (loops * batch, 1,
        hidden), `injected` the input of their tokens and `ids` these; `columns` are where they lie, all below `stop`.
        No token sees what lies behind it.
        """
        self.cache.cursor.spread(columns, stop)
        self.passes += 1
        self.token_loops += len(loops)
        if (at := (loops.start, loops.stop)) not in self.fronts:
            self.fronts[at] = Front(self.cache, *at)
        context = self._scattered(ids, columns, stop, self.pads.repeat(len(loops), 1), self.fronts[at], injected)
        z = self.model.step(h, 0, context)
        return z, self.model.carry(z, 0, context, h)

    def _scattered(
        self,
        ids: Int[Tensor, "rows 1"],
        columns: Int[Tensor, "rows 1"],
        stop: int,
        pads: Int[Tensor, "rows 1"],
        cache: LoopCache | Front,
        injected: Injected | None = None,
    ) -> Context:
        """Return the context of one token per row, each at its own column below `stop`."""
        if self.padded:
            positions, mask = columns - pads, self._unpadded(columns, pads, stop)
        else:
            positions, mask = columns, (self.columns[:stop] <= columns)[:, None, None]
        return self._context(ids, mask, positions, cache, injected)

    def _context(
        self,
        ids: Tokens,
        allowed: Bool[Tensor, "..."] | None,
        positions: Positions,
        cache: LoopCache | Front,
        injected: Injected | None,
    ) -> Context:
        """Return the context of new tokens that see what is `allowed` (None: each all before it)."""
        mask = None if allowed is None else mask_of(self.model.config, allowed, self.model.dtype)
        like = self.model.model.like(ids)
        return self.model.model.prepared_context(like, mask, self._positions(positions), cache, ids, injected)

    def _positions(self, positions: Positions) -> Positions:
        """Keep within what the model has positions for."""
        if self.padded or self.last_position is not None:
            return positions.clamp(0, self.last_position)
        return positions

    def _unpadded(
        self, columns: Int[Tensor, "rows new"], pads: Int[Tensor, "rows 1"], stop: int
    ) -> Bool[Tensor, "rows 1 new columns"]:
        """Allow every token its row's columns up to itself, without padding. A padding token sees itself alone."""
        seen = self.columns[None, None, :stop]
        allowed = (seen >= pads[:, :, None]) & (seen <= columns[:, :, None])
        return (allowed | (seen == columns[:, :, None]))[:, None]


@contextmanager
def enough_threads(model: LoopedForCausalLM) -> Iterator[None]:
    """Run on one thread where a model's matrices are too small to share; the number is what it was afterwards."""
    before = torch.get_num_threads()
    alone = execution_device(model).type == "cpu" and before > 1 and model.num_parameters() < SHARED_FROM
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(before)
