"""A lane: the rows of one decoding call, their cache, and any range of loops over any new tokens of them."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from loopscale.decode.cache import LoopCache
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM, StepContext
from loopscale.stepping import Positions, State, Tokens


@dataclass(frozen=True)
class Window:
    """Where new tokens lie: `length` columns of every row from `starts` on, and what a step needs to know of that."""

    starts: list[int]
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
        self.padded = any(pads)
        self.pads = torch.tensor(pads, device=model.device)[:, None]
        self.columns = torch.arange(capacity, device=model.device)
        self.last_position = model.config.max_position_embeddings - 1
        self.additive = model.config._attn_implementation == "eager"
        self.passes = 0
        self.token_loops = 0

    def window(self, starts: list[int], length: int) -> Window:
        """Return the window of `length` new tokens per row."""
        mask: Tensor | None = None
        start, stop = starts[0], max(starts) + length
        if self.padded or len(set(starts)) > 1:
            columns = torch.tensor(starts, device=self.pads.device)[:, None] + self.columns[:length]
            positions = (columns - self.pads).clamp_min(0)
            mask = self._ragged_mask(columns, stop)
        else:
            positions = self.columns[None, start:stop]
            if length > 1 and (start > 0 or self.additive):  # sdpa knows plain causal attention from 0 without a mask
                mask = (self.columns[:stop] <= positions[..., None])[:, None]
        if self.model.model.embed_positions is not None:
            positions = positions.clamp_max(self.last_position)  # of tokens beyond the end, which are thrown away
        rotary = self.model.model.rotary_emb
        hidden = self.model.lm_head.weight  # rotary reads only its device and dtype
        context = StepContext(self._in_form(mask), None if rotary is None else rotary(hidden, positions), self.cache)
        return Window(starts, length, positions, context)

    def embed(self, ids: Tokens, window: Window) -> State:
        """Return what loop 0 receives of the window's tokens."""
        return self.model.embed(ids, window.positions)

    def run(self, h: State, window: Window, first: int, stop: int) -> State:
        """Run loops `first` .. `stop` - 1 on what loop `first` receives; return the state of the last."""
        self.cache.cursor.move(window.starts, window.length, h.device)
        self.passes += stop - first
        self.token_loops += (stop - first) * window.length
        z = self.model.step(h, first, window.context)
        for k in range(first + 1, stop):
            z = self.model.step(self.model.carry(z, k - 1), k, window.context)
        return z

    def _ragged_mask(self, columns: Int[Tensor, "batch seq"], stop: int) -> Bool[Tensor, "batch 1 seq columns"]:
        """Allow every token its row's columns up to itself, without padding. A padding token sees itself alone."""
        seen = self.columns[None, None, :stop]
        allowed = (seen >= self.pads[:, :, None]) & (seen <= columns[:, :, None])
        return (allowed | (seen == columns[:, :, None]))[:, None]

    def _in_form(self, mask: Tensor | None) -> Tensor | None:
        """Return the mask as the attention implementation wants it."""
        if mask is None or not self.additive:
            return mask
        return torch.zeros(mask.shape, dtype=self.model.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(self.model.dtype).min
        )


def check_attention(model: LoopedForCausalLM) -> None:
    """Raise `InputError` for an attention implementation that cannot take the masks of unequal rows."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        raise InputError(
            f"attention implementation '{model.config._attn_implementation}' cannot decode rows of unequal length: "
            "load the model with attn_implementation='sdpa'."
        )
