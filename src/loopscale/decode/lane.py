"""A lane: the rows of one decoding call, their cache, and any loops over any new tokens of them."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from loopscale.decode.cache import Front, LoopCache
from loopscale.errors import InputError
from loopscale.hf import attention_implementation
from loopscale.model import LoopedForCausalLM, StepContext
from loopscale.stepping import Positions, State, Tokens


@dataclass(frozen=True)
class Window:
    """Where new tokens lie: `length` columns of every row from `start` on, and what a step needs to know of that."""

    start: int
    length: int
    positions: Positions
    context: StepContext


@final
class Lane:
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
        self.pads = torch.tensor(pads, device=model.device)[:, None]
        self.columns = torch.arange(capacity, device=model.device)
        room = model.config.max_position_embeddings
        # places without a token may lie behind the end of a learned table
        self.last_position = room - 1 if model.model.embed_positions is not None and capacity > room else None
        self.additive = attention_implementation(model.config) == "eager"
        self.passes = 0
        self.token_loops = 0

    def window(self, start: int, length: int) -> Window:
        """Return the window of `length` new tokens per row."""
        mask: Tensor | None = None
        stop = start + length
        columns = positions = self.columns[None, start:stop]
        if self.padded:
            positions = (columns - self.pads).clamp_min(0)
            mask = self._unpadded(columns.expand(len(self.pads), -1), self.pads, stop)
        elif length > 1 and (start > 0 or self.additive):  # sdpa knows plain causal attention from 0 without a mask
            mask = (self.columns[:stop] <= columns[..., None])[:, None]
        return Window(start, length, positions, self._context(mask, positions, self.cache))

    def embed(self, ids: Tokens, window: Window) -> State:
        """Return what loop 0 receives of the window's tokens."""
        return self.model.embed(ids, window.positions)

    def run(self, h: State, window: Window, first: int, stop: int) -> State:
        """Run loops `first` .. `stop` - 1 on what loop `first` receives; return the state of the last."""
        self.cache.cursor.move(window.start, window.length)
        self.passes += stop - first
        self.token_loops += (stop - first) * window.length
        z = self.model.step(h, first, window.context)
        for k in range(first + 1, stop):
            z = self.model.step(self.model.carry(z, k - 1), k, window.context)
        return z

    def embed_at(self, ids: Int[Tensor, "batch 1"], columns: Int[Tensor, "batch 1"]) -> State:
        """Return what loop 0 receives of one token per row, each at its own column."""
        return self.model.embed(ids, self._positions(columns - self.pads if self.padded else columns))

    def run_front(self, h: State, loops: range, columns: Int[Tensor, "rows 1"], stop: int) -> State:
        """Run neighbouring loops side by side, every loop on one token of its own per row of the batch: one pass.

        `h` is what the loops receive, one after another, (loops * batch, 1, hidden); `columns` are where their tokens
        lie, all below `stop`. No token sees what lies behind it.
        """
        self.cache.cursor.spread(columns, stop)
        self.passes += 1
        self.token_loops += len(loops)
        if self.padded:
            pads = self.pads.repeat(len(loops), 1)
            positions, mask = columns - pads, self._unpadded(columns, pads, stop)
        else:
            positions, mask = columns, (self.columns[:stop] <= columns)[:, None, None]
        if (at := (loops.start, loops.stop)) not in self.fronts:
            self.fronts[at] = Front(self.cache, *at)
        return self.model.step(h, 0, self._context(mask, positions, self.fronts[at]))

    def _context(self, mask: Bool[Tensor, "..."] | None, positions: Positions, cache: LoopCache | Front) -> StepContext:
        """Return what a step needs, with the mask in the form that the attention implementation wants."""
        if mask is not None and self.additive:
            dtype = self.model.dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
        rotary = self.model.model.rotary_emb
        if rotary is None:
            return StepContext(mask, None, cache)
        weight = self.model.lm_head.weight  # rotary reads only its device and dtype
        return StepContext(mask, rotary(weight, self._positions(positions)), cache)

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


def check_attention(model: LoopedForCausalLM) -> None:
    """Raise `InputError` for an attention implementation that cannot take the masks of unequal rows."""
    name = attention_implementation(model.config)
    if name not in ("sdpa", "eager"):
        raise InputError(
            f"attention implementation '{name}' cannot decode rows of unequal length: "
            "load the model with attn_implementation='sdpa'."
        )
