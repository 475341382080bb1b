"""Session of one decoding call: its rows, their cache, and any loops over any new tokens of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscale.decode.cache import Front, LoopCache
from loopscale.hf import additive_mask, attention_implementation, execution_device
from loopscale.model import LoopedForCausalLM
from loopscale.model.slots import Slots
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
    the tokens they were applied to (per row of the batch). `exits` are those that are read, every one by default; a
    token is read at an exit by way of the coda only once all before it have been.
    """

    def __init__(
        self,
        model: LoopedForCausalLM,
        pads: list[int],
        capacity: int,
        num_loops: int,
        exits: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.num_loops = num_loops
        self.exits = range(num_loops) if exits is None else exits
        self.has_prelude, self.has_coda = model.model.has_prelude, model.model.has_coda
        readout, coda_input = model.readout_norm, model.coda_input
        self.exits_differ = readout.reads_last or readout.reads_loop or coda_input.reads_loop
        self.cache = LoopCache(model, len(pads), capacity, num_loops, self.exits)
        self.fronts: dict[tuple[str, int, int], Front] = {}
        self.padded = any(pads)
        device = execution_device(model)
        self.pads = torch.tensor(pads, device=device)[:, None]
        self.columns = torch.arange(capacity, device=device)
        room = model.config.max_position_embeddings
        # places without a token may lie behind the end of a learned table
        self.last_position = room - 1 if model.model.embed_positions is not None and capacity > room else None
        self.additive = attention_implementation(model.config) == "eager"
        self.like = torch.empty((), dtype=model.dtype, device=device)  # the precision and place of positions and masks
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
        for state in self.states(h, window, first, stop):
            z = state
        return z

    def states(self, h: State, window: Window, first: int, stop: int) -> Iterator[State]:
        """Yield the states of the same loops."""
        for k in range(first, stop):
            self.cache.cursor.move(window.start, window.length)
            self.passes += 1
            self.token_loops += window.length
            z = self.model.step(h, k, window.context)
            yield z
            if k + 1 < stop:
                h = self.model.carry(z, k, window.context, h)

    def read(self, z: State, window: Window, k: int) -> Float[Tensor, "batch 1 vocab"]:
        """Return the logits of the window's last token at exit k from the states of all of them."""
        if not self.has_coda:
            return self.model.readout(z[:, -1:], k)
        self.cache.cursor.move(window.start, window.length)
        return self.model.lm_head(self.model.readout_state(z, k, window.context)[:, -1:])

    def embed_at(
        self, ids: Int[Tensor, "batch 1"], columns: Int[Tensor, "batch 1"], stop: int
    ) -> tuple[State, Injected | None]:
        """Return what loop 0 receives of one token per row, each at its own column below `stop`, and their input e.

        None in place of e: this model has no use for it later.
        """
        if self.has_prelude:
            self.cache.cursor.spread(columns, stop)
            context = self._scattered(ids, columns, stop, self.cache)
        else:  # nothing looks at other tokens here
            context = Context(ids, positions=self._positions(columns - self.pads if self.padded else columns))
        context = self.model.model.with_input(context)
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
        front = self._front("loops", loops.start, loops.stop)
        context = self._scattered(ids, columns, stop, front, injected)
        z = self.model.step(h, 0, context)
        return z, self.model.carry(z, 0, context, h)

    def read_front(
        self,
        z: State,
        ids: Int[Tensor, "rows 1"],
        loops: range,
        exits: Sequence[int],
        columns: Int[Tensor, "rows 1"],
        stop: int,
    ) -> Float[Tensor, "read vocab"]:
        """Return the logits of some exits, (exits * batch, vocab), from what `run_front` made of `loops`."""
        batch = len(self.pads)
        at = [(k - loops.start) * batch for k in exits]
        first, lone = at[0], at[-1] + batch != at[0] + len(exits) * batch  # some exits between are not read

        def some(x: Tensor) -> Tensor:
            return torch.cat([x[i : i + batch] for i in at]) if lone else x[first : first + len(exits) * batch]

        z = some(z)
        if not self.has_coda and not self.exits_differ:
            return self.model.readout(z, exits[0])[:, 0]
        ids, columns = some(ids), some(columns)
        if self.exits_differ:
            rows = zip(exits, z.split(batch), ids.split(batch), columns.split(batch), strict=True)
            apart = [self._read_at(k, own, of, lie, stop, self.cache) for k, own, of, lie in rows]
            return self.model.lm_head(torch.cat(apart))[:, 0]
        front = self._front("exits", self.exits.index(exits[0]), self.exits.index(exits[-1]) + 1)
        return self.model.lm_head(self._read_at(exits[0], z, ids, columns, stop, front))[:, 0]

    def _read_at(
        self,
        k: int,
        z: State,
        ids: Int[Tensor, "rows 1"],
        columns: Int[Tensor, "rows 1"],
        stop: int,
        cache: LoopCache | Front,
    ) -> State:
        """Return what the head sees of one token per row, each at its own column, at exit k."""
        if not self.has_coda:
            return self.model.readout_state(z, k)
        self.cache.cursor.spread(columns, stop)
        context = self._scattered(ids, columns, stop, cache)
        if isinstance(cache, Front):  # its first slot is the first layer's
            context = replace(context, layout=Slots(core=0, loops=0, coda=len(cache.layers), exits=(k,)))
        return self.model.readout_state(z, k, context)

    def _front(self, kind: str, first: int, stop: int) -> Front:
        """Return the cache of neighbouring loops, or exits, made once."""
        cache = self.cache
        if (at := (kind, first, stop)) not in self.fronts:
            before, buffers = (cache.before, cache.buffers) if kind == "loops" else ([], cache.codas)
            self.fronts[at] = Front(cache.cursor, buffers, first, stop, before)
        return self.fronts[at]

    def _scattered(
        self,
        ids: Int[Tensor, "rows 1"],
        columns: Int[Tensor, "rows 1"],
        stop: int,
        cache: LoopCache | Front,
        injected: Injected | None = None,
    ) -> Context:
        """Return the context of one token per row, each at its own column below `stop`; the batch may come in turns."""
        if self.padded:
            pads = self.pads.repeat(len(columns) // len(self.pads), 1)
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
        mask = allowed if allowed is None or not self.additive else additive_mask(allowed, self.like.dtype)
        positions = self._positions(positions)
        rotary = self.model.model.rotary(self.like, positions)
        return Context(ids, injected, mask, positions, rotary, cache, self.cache.layout)

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
    alone = before > 1 and execution_device(model).type == "cpu" and model.num_parameters() < SHARED_FROM
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(before)
