"""Steps of torch's optimizers, heard without being told which: one hook for all, while anybody listens."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle


@runtime_checkable
class HearsSteps(Protocol):
    """What wants to hear of the steps of one model's optimizers."""

    def trains(self, optimizer: Optimizer) -> bool:
        """Return whether this optimizer is one of them."""

    def stepped(self) -> None:
        """Hear of a step."""


_LISTENERS: WeakSet[Any] = WeakSet()
_HANDLE: list[RemovableHandle] = []


def hear_steps(listener: HearsSteps) -> Callable[[], None]:
    """Let the listener hear of steps from now on; return what ends it."""
    _LISTENERS.add(listener)
    if not _HANDLE:
        _HANDLE.append(register_optimizer_step_post_hook(_tell))

    def end() -> None:
        _LISTENERS.discard(listener)
        if not _LISTENERS and _HANDLE:
            _HANDLE.pop().remove()

    return end


def _tell(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for listener in list(_LISTENERS):
        if listener.trains(optimizer):
            listener.stepped()
