"""An accelerator that is none: its tensors say that they lie on another device, and whoever waits for it is noted.

Their numbers are there, on the CPU, so that whole calls run as they would, decisions included. The device is called
`meta`, the only one beside the CPU that every build of torch differentiates on.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from loopscale.model import LoopedForCausalLM
from loopscale.objective import head

DEVICE = torch.device("meta")
# what tells the host of numbers, or makes as many numbers as numbers say
READS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount", "allclose"),
    *("_unique2", "unique_dim", "unique_consecutive"),
}
COPIES = {"_to_copy", "copy_", "_copy_from", "set_"}
INDEXES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class There(Tensor):
    """A tensor on the pretended device. `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        """Wrap a tensor of the CPU."""
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        wrapped = Tensor._make_wrapper_subclass(cls, held.size(), device=DEVICE, **layout)
        wrapped.held = held
        return wrapped

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.held!r})"

    def tolist(self) -> Any:
        """Return the numbers by way of the host, as torch does for any device; it refuses subclasses."""
        return self.to("cpu").tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Operations come by the mode: without it nothing would see those that make tensors."""
        raise RuntimeError(f"{function} of a tensor of the accelerator outside `accelerator()`")


class Accelerator(TorchDispatchMode):
    """Runs what is asked of the device on the CPU, and notes in `waits` what a real one would have waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        kwargs = dict(kwargs or {})
        with self:  # in inference mode what is made of several operations comes as one
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        asked = kwargs.get("device")
        there = any(isinstance(x, There) for x in inputs) if asked is None else torch.device(asked) == DEVICE
        name = function.overloadpacket.__name__
        if self._waits(name, args, inputs, there):
            self.waits.append(f"{name} at {_place()}")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        own_args, own_kwargs = tree_map(_held, (tuple(args), kwargs))
        result = function(*own_args, **own_kwargs)
        if name == "copy_" or not there:  # numbers that were copied to the host are the host's
            return args[0] if name == "copy_" else result
        known = {id(x.held): x for x in inputs if isinstance(x, There)}  # of operations in place
        return tree_map(lambda x: known.get(id(x)) if id(x) in known else _there(x), result)

    def _waits(self, name: str, args: Sequence[Any], inputs: list[Tensor], there: bool) -> bool:
        on_device = [isinstance(x, There) for x in inputs]
        if name in READS or (name == "repeat_interleave" and len(inputs) == 1):
            return any(on_device)
        if name in COPIES and inputs:
            return there != on_device[-1] if name == "_to_copy" else len(set(on_device)) > 1
        if name in INDEXES and on_device[0]:
            indices = [x for x in args[1] if isinstance(x, Tensor)]
            return any(x.dtype in (torch.bool, torch.uint8) or not isinstance(x, There) for x in indices)
        return False


class MadeOfNumbers(TorchFunctionMode):
    """Python's numbers on their way to the device, which waits for their copy: below this, torch makes it unseen."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make a tensor."""
        kwargs = dict(kwargs or {})
        asked = kwargs.get("device")
        if function not in (torch.tensor, torch.as_tensor) or asked is None or torch.device(asked) != DEVICE:
            return function(*args, **kwargs)
        made = function(*args, **{**kwargs, "device": "cpu"})
        if made.numel():
            self.waits.append(f"{function.__name__} at {_place()}")
        return There(made)


@contextmanager
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """Have the device for a while. A head there is the plain product that it is, whatever its tensors are called."""
    monkeypatch.setattr(head, "plain_weight", _weight)
    monkeypatch.setattr("loopscale.objective.all_exits.plain_weight", _weight)
    monkeypatch.setattr("loopscale.model.facts.plain_weight", _weight)
    with Accelerator() as mode, MadeOfNumbers(mode.waits):
        yield mode


def moved(model: LoopedForCausalLM) -> LoopedForCausalLM:
    """Return a model with its weights on the device; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                made.setdefault(id(weight), nn.Parameter(There(weight.detach()), weight.requires_grad))
                module._parameters[name] = made[id(weight)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = There(buffer)
    return model


def _weight(made_by: Tensor | nn.Module) -> Tensor:
    return made_by if isinstance(made_by, Tensor) else cast(Tensor, made_by.weight)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


def _there(x: Any) -> Any:
    return There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x


def _place() -> str:
    """Return the line of ours that is under way."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and "/loopscale/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{frame.f_code.co_filename.rpartition('/src/')[2]}:{frame.f_lineno}"
