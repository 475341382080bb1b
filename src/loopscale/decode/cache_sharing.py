"""Cache sharing, for a smaller one in `generate`: the last loops share one slot per layer."""

from typing import Any, final

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native


@final
class _Reuse(DynamicLayer):
    """A slot of a deeper loop that writes over the newest tokens of another slot instead of keeping its own.

    Past tokens are then seen as the last loop left them; the tokens of the call at hand as each loop has them.
    """

    is_croppable = True

    def __init__(self, base: DynamicLayer) -> None:
        super().__init__()
        self.base = base

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Replace the newest tokens and return everything."""
        new = key_states.shape[-2]
        self.base.keys[..., -new:, :] = key_states
        self.base.values[..., -new:, :] = value_states
        return self.base.keys, self.base.values

    def get_seq_length(self) -> int:
        """Return the tokens that the shared slot holds."""
        return self.base.get_seq_length()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the sizes of the shared slot."""
        return self.base.get_mask_sizes(query_length)

    def reset(self) -> None:
        """Nothing of its own to forget; the same holds for what follows."""

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing to crop."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Nothing to reorder."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Nothing to repeat."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Nothing to select."""


def shared_cache(model: LoopedForCausalLM | Any, share_last: int, num_loops: int | None = None) -> Cache:
    """Return a cache in which the last `share_last` loops share one slot per layer, for `generate`.

    It holds num_loops - share_last + 1 loops' worth instead of num_loops. `share_last=1` keeps all loops (exact). More
    changes the text: past tokens are seen by all sharing loops as the last of them left them. The prompt itself runs as
    with a full cache. Give `generate` the same `num_loops`; use one cache for one text.

    Raises `InputError` for fewer than 1 or more than `num_loops` sharing loops, and for a model of another kind.
    """
    model = require_native(model, "shared_cache")
    K = model.num_loops if num_loops is None else num_loops
    if not 1 <= share_last <= K:
        raise InputError(f"share_last is {share_last}: between 1 (keep all) and the {K} loops can share a slot.")
    slots, first_shared = model.config.slots(K), K - share_last
    owned = [DynamicLayer() for _ in range(slots.at(first_shared + 1, 0))]
    shared = owned[slots.at(first_shared, 0) :]
    reused = [_Reuse(base) for _ in range(share_last - 1) for base in shared]
    last_exit = [DynamicLayer() for _ in range(slots.coda)]
    return Cache(layers=[*owned, *reused, *last_exit])
