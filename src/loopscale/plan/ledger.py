"""Ledger of a step: the bytes alive at any time, and the floating-point operations, whatever makes them."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from loopscale.hf.tracing import CPU_ATTENTION, TorchDispatchMode, kernel_of, storage_key, tree_leaves

#: The counter knows the attention kernels of GPUs alone.
FORMULAS: Mapping[Any, Any] = {**flop_registry, **{own: flop_registry[same] for own, same in CPU_ATTENTION.items()}}


@final
class Ledger(TorchDispatchMode):
    """Counts while it is on: storages that operations make, until the last tensor on each is gone.

    What was there before is not counted. `flops` are those of `torch.utils.flop_counter`, by the same formulas.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0  # bytes
        self.flops = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note what it made."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if (formula := FORMULAS.get(kernel_of(function))) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        given = _storages((args, kwargs))
        for key, storage in _storages(result).items():
            if key not in given and key not in self._known:  # a view of what was there before is not new
                self._note(key, storage)
        return result

    def _note(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: Any) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)


def _storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """Return the storages of all tensors among the values, by their address."""
    found = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return {storage_key(storage): storage for storage in found}
