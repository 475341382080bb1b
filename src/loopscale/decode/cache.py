"""Preallocated key-value cache with one slot per visit of a layer, whose write position the caller sets.

transformers' dynamic cache copies all it holds at every token, its static cache cannot be rolled back, and neither can
hold rows of unequal length. Here a slot writes where a cursor points, and a rejected token is rolled back by pointing
there again. The loops of one layer lie side by side, so that a `Front` runs several of them, each at its own token, as
one batch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from loopscale.hf import execution_device
from loopscale.model import LoopedForCausalLM
from loopscale.system.precision import autocast_dtype

New = Float[Tensor, "rows heads new head_size"]
Seen = Float[Tensor, "rows heads seen head_size"]


@final
class Cursor:
    """The columns that the next pass writes, shared by all slots: a range, or one per row at `places`.

    Places count the columns of all heads of all rows of a slot, one after another; `heads` of a row have `capacity`
    columns each.
    """

    def __init__(self, heads: int, capacity: int, most_rows: int, device: torch.device) -> None:
        self.start = 0
        self.stop = 0
        self.places: Int[Tensor, " rows*heads"] | None = None
        self.first = torch.arange(0, most_rows * heads * capacity, capacity, device=device).view(most_rows, heads)

    def move(self, start: int, length: int) -> None:
        """Point at `length` columns of every row from `start` on; whatever lies there is overwritten."""
        self.start, self.stop = start, start + length
        self.places = None

    def spread(self, columns: Int[Tensor, "rows 1"], stop: int) -> None:
        """Point at one column per row; `stop` is one more than the largest."""
        self.stop = stop
        self.places = (self.first[: len(columns)] + columns).flatten()


@final
class Slot(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, capacity, head size)."""

    is_compileable = False

    def __init__(self, cursor: Cursor, keys: Seen, values: Seen) -> None:
        super().__init__()
        self.cursor, self.keys, self.values = cursor, keys, values
        self.flat = keys.view(-1, keys.shape[-1]), values.view(-1, values.shape[-1])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the slot is allocated with the cache."""

    def update(self, key_states: New, value_states: New, *args: Any, **kwargs: Any) -> tuple[Seen, Seen]:
        """Write at the cursor and return everything up to its end, as views."""
        at = self.cursor
        if at.places is None:
            self.keys[:, :, at.start : at.stop] = key_states
            self.values[:, :, at.start : at.stop] = value_states
        else:
            for flat, new in zip(self.flat, (key_states, value_states), strict=True):
                flat.index_copy_(0, at.places, new.reshape(-1, flat.shape[1]).to(flat.dtype))
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
    """One `Slot` per visit of a layer, in the order of the model's `Slots`, all at one cursor.

    `exits` are those that will be read: where there is a coda it has slots of its own for each.
    """

    def __init__(
        self, model: LoopedForCausalLM, batch: int, capacity: int, num_loops: int, exits: Sequence[int]
    ) -> None:
        config = model.config
        self.num_loops = num_loops
        heads = config.num_key_value_heads or config.num_attention_heads
        assert config.head_dim is not None  # the config fills it
        slot = (batch, heads, capacity, config.head_dim)
        device = execution_device(model)
        self.cursor = Cursor(heads, capacity, batch * max(num_loops, len(exits)), device)
        dtype = autocast_dtype(device.type) or model.dtype  # under autocast keys and values are of its precision
        like: Any = {"dtype": dtype, "device": device}
        self.buffers = [torch.zeros((2, num_loops, *slot), **like) for _ in range(config.num_stack_layers)]
        self.before = [Slot(self.cursor, *torch.zeros((2, *slot), **like)) for _ in range(config.num_prelude_layers)]
        self.codas = [torch.zeros((2, len(exits), *slot), **like) for _ in range(config.num_coda_layers)]
        self.layout = slots = replace(config.slots(num_loops), exits=tuple(exits))
        visits = {slots.before(i): layer for i, layer in enumerate(self.before)}
        visits |= {
            slots.at(k, i): Slot(self.cursor, *layer[:, k])
            for k in range(num_loops)
            for i, layer in enumerate(self.buffers)
        }
        visits |= {
            slots.at_exit(k, i): Slot(self.cursor, *layer[:, e])
            for e, k in enumerate(exits)
            for i, layer in enumerate(self.codas)
        }
        super().__init__(layers=[visits[slot] for slot in range(slots.total)])

    def share(self, k: int, column: int) -> None:
        """Copy what loop k wrote at a column into the slots of all deeper loops."""
        for layer in self.buffers:
            layer[:, k + 1 :, :, :, column] = layer[:, k : k + 1, :, :, column]


@final
class Front(Cache):
    """Neighbouring loops of a `LoopCache`, or neighbours among its exits, as the rows of one batch, (n * batch, ...).

    `buffers` are those of the layers that run, of which there is one `Slot` each; slots `before` keep their places, and
    rows of their own.
    """

    def __init__(
        self, cursor: Cursor, buffers: list[Tensor], first: int, stop: int, before: Sequence[Slot] = ()
    ) -> None:
        rows = [Slot(cursor, *layer[:, first:stop].flatten(1, 2)) for layer in buffers]
        super().__init__(layers=[*before, *rows])
