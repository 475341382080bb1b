"""A preallocated cache with one slot per (loop, layer), whose write position the caller sets.

transformers' dynamic cache copies all it holds at every token, its static cache cannot be rolled back, and neither can
hold rows of unequal length. Here a slot writes where the shared cursor points: drafting writes the slots of the first
loops, verification the same columns of the others, and a rejected token is rolled back by pointing there again.
"""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from loopscale.model import LoopedForCausalLM

New = Float[Tensor, "batch heads new head_size"]
Seen = Float[Tensor, "batch heads seen head_size"]


@final
class Cursor:
    """The columns that the next pass writes, shared by all slots: a range, or (`rows`, `columns`) where rows differ."""

    def __init__(self) -> None:
        self.start = 0
        self.stop = 0
        self.rows: Int[Tensor, "batch 1"] | None = None
        self.columns: Int[Tensor, "batch seq"] | None = None

    def move(self, starts: list[int], length: int, device: torch.device) -> None:
        """Point at `length` columns from `starts` (one per row) on; whatever lies there is overwritten."""
        self.start, self.stop = starts[0], max(starts) + length
        self.rows = self.columns = None
        if len(set(starts)) > 1:
            self.rows = torch.arange(len(starts), device=device)[:, None]
            self.columns = torch.tensor(starts, device=device)[:, None] + torch.arange(length, device=device)


@final
class Slot(CacheLayerMixin):
    """Keys and values of one layer in one loop, (batch, heads, capacity, head size)."""

    is_compileable = False

    def __init__(self, cursor: Cursor, keys: Seen, values: Seen) -> None:
        super().__init__()
        self.cursor, self.keys, self.values = cursor, keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the slot is allocated with the cache."""

    def update(self, key_states: New, value_states: New, *args: Any, **kwargs: Any) -> tuple[Seen, Seen]:
        """Write at the cursor and return everything up to its end, as views."""
        at = self.cursor
        if at.columns is None:
            self.keys[:, :, at.start : at.stop] = key_states
            self.values[:, :, at.start : at.stop] = value_states
        else:
            self.keys[at.rows, :, at.columns] = key_states.transpose(1, 2)
            self.values[at.rows, :, at.columns] = value_states.transpose(1, 2)
        return self.keys[:, :, : at.stop], self.values[:, :, : at.stop]

    def get_seq_length(self) -> int:
        """Return the number of columns up to the cursor."""
        return self.cursor.stop

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns a pass of `query_length` tokens sees, and from which on."""
        return self.cursor.stop + query_length, 0

    def get_max_length(self) -> int:
        """Return the number of columns there are."""
        return self.keys.shape[2]


@final
class LoopCache(Cache):
    """One `Slot` per (loop, layer), slot = k * layers + layer, all at one cursor."""

    def __init__(self, model: LoopedForCausalLM, batch: int, capacity: int, num_loops: int) -> None:
        config = model.config
        self.cursor = Cursor()
        self.num_loops = num_loops
        heads = config.num_key_value_heads or config.num_attention_heads
        shape = (2, batch, heads, capacity, config.head_dim)
        buffers = [
            torch.zeros(shape, dtype=model.dtype, device=model.device)
            for _ in range(num_loops * config.num_stack_layers)
        ]
        super().__init__(layers=[Slot(self.cursor, keys, values) for keys, values in buffers])

    def share(self, k: int, column: int) -> None:
        """Copy what loop k wrote at a column into the slots of all deeper loops."""
        layers = len(self.layers) // self.num_loops
        for i in range(layers):
            source = self.layers[k * layers + i]
            for deeper in self.layers[(k + 1) * layers + i :: layers]:
                deeper.keys[:, :, column] = source.keys[:, :, column]
                deeper.values[:, :, column] = source.values[:, :, column]
