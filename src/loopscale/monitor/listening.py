"""Listening to modules: hooks that tell a listener when a forward begins and ends, and of every state in between.

They cost a comparison where nothing is due, survive torch.compile as one opaque operation each, and leave copies and
pickles of the model without a listener.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, final, runtime_checkable
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from loopscale.hf import in_backward, wrapped_model
from loopscale.monitor.token_masks import places_of, real_tokens

OPEN, CLOSE, STATE, BLOCK = "open", "close", "state", "block"


@runtime_checkable
class Listener(Protocol):
    """What hears of the forward of a model."""

    @property
    def unmasked(self) -> bool:
        """Whether it wants to know which tokens of this forward are real."""

    def masked(self, real: Tensor) -> None:
        """Hear which tokens of this forward are real."""

    def open(self, name: str, grad: bool, training: bool) -> None:
        """Hear that a module around the loops is called, with gradients or in training mode or neither."""

    def close(self, name: str) -> None:
        """Hear that it returned or failed."""

    def state(self, z: Tensor, grad: bool, training: bool) -> None:
        """Hear of the output of a watched module."""

    def block(self) -> None:
        """Hear that a loop's block returned."""

    def pick(self, output: Any, name: str) -> Tensor:
        """Return the state in what a watched module returns."""


_LISTENERS: WeakValueDictionary[str, "Listener"] = WeakValueDictionary()
_HEARERS: WeakSet[Any] = WeakSet()
_STEP_HANDLE: list[RemovableHandle] = []


# words, not numbers, which a compiler may take for variables
# `count` is what the operation is said to change: the compiler then keeps it, and keeps the order of several
@torch.library.custom_op("loopscale::heard", mutates_args=("count",))
def heard(z: Tensor | None, count: Tensor, key: str, event: str, name: str, grad: bool, training: bool) -> None:
    """Tell a listener of an event, in a compiled graph."""
    listener = _LISTENERS.get(key)
    if listener is not None:
        _tell(listener, event, name, z, grad, training)


@heard.register_fake
def _(z: Tensor | None, count: Tensor, key: str, event: str, name: str, grad: bool, training: bool) -> None:
    return None


def _tell(listener: Listener, event: str, name: str, z: Tensor | None, grad: bool, training: bool) -> None:
    if event == OPEN:
        listener.open(name, grad, training)
    elif event == CLOSE:
        listener.close(name)
    elif event == STATE:
        assert z is not None
        listener.state(z, grad, training)
    else:
        listener.block()


@final
class Hook:
    """One hook on one module. A copy or a pickle of it hears nothing."""

    def __init__(self, listener: Listener, module: nn.Module, name: str, event: str, count: Tensor) -> None:
        self.listener, self.name, self.event, self.count = listener, name, event, count
        self.key, self.module = str(id(listener)), id(module)
        self.masks = places_of(wrapped_model(module))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return deaf, ()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        """Tell the listener, unless this forward is a part of a backward pass, which recomputes it."""
        grad, training = torch.is_grad_enabled(), module.training
        if torch.compiler.is_compiling():
            z = self.listener.pick(output, self.name).detach() if self.event == STATE else None
            torch.ops.loopscale.heard(z, self.count, self.key, self.event, self.name, grad, training)
        elif id(module) == self.module and not in_backward():  # a replica of DataParallel is another module
            z = self.listener.pick(output, self.name) if self.event == STATE and output is not None else None
            if self.event == OPEN:
                _tell(self.listener, OPEN, self.name, None, grad, training)
            if self.event in (OPEN, STATE) and self.listener.unmasked:
                real = real_tokens(args, kwargs, self.masks)
                if real is not None:
                    self.listener.masked(real)
            if self.event not in (OPEN, STATE) or z is not None:
                _tell(self.listener, self.event, self.name, z, grad, training)


def deaf() -> Callable[..., None]:
    """Return the hook of a copied model: it does nothing."""
    return _nothing


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def listen(
    listener: Listener,
    around: Mapping[str, nn.Module],
    states: Mapping[str, nn.Module],
    blocks: Mapping[str, nn.Module],
) -> list[RemovableHandle]:
    """Put the hooks on: `around` are modules that contain the loops, `blocks` one loop each, `states` make the states.

    The listener is kept alive by the model.
    """
    _LISTENERS[str(id(listener))] = listener
    count = torch.zeros(1)
    handles = []
    for name, module in around.items():
        before, after = (Hook(listener, module, name, event, count) for event in (OPEN, CLOSE))
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
    for event, modules in ((STATE, states), (BLOCK, blocks)):  # a block that is its own state: the state first
        for name, module in modules.items():
            hook = Hook(listener, module, name, event, count)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return handles


@runtime_checkable
class HearsSteps(Protocol):
    """What wants to hear of the steps of one model's optimizers."""

    def trains(self, optimizer: Optimizer) -> bool:
        """Return whether this optimizer is one of them."""

    def stepped(self) -> None:
        """Hear of a step."""


def hear_steps(listener: HearsSteps) -> Callable[[], None]:
    """Let the listener hear of steps from now on; return what ends it."""
    _HEARERS.add(listener)
    if not _STEP_HANDLE:
        _STEP_HANDLE.append(register_optimizer_step_post_hook(_tell_step))

    def end() -> None:
        _HEARERS.discard(listener)
        if not _HEARERS and _STEP_HANDLE:
            _STEP_HANDLE.pop().remove()

    return end


def _tell_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for listener in list(_HEARERS):
        if listener.trains(optimizer):
            listener.stepped()
