"""Capture of one forward: which calls are loops, and the sums over their states where the forward is to be read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from loopscale.errors import InputError
from loopscale.monitor.loop_sums import Tally, local
from loopscale.monitor.roles import Targets


@final
class Capture:
    """Hears of a model's calls; `begins(grad, training)` says of each forward whether it is to be read.

    Loops are told apart by counting calls from the outermost call of a module around them on. Where none is called, a
    forward ends with its backward pass or with a step, unless `targets.calls` says how many states it has.
    """

    def __init__(
        self, targets: Targets, begins: Callable[[bool, bool], bool], pick: Callable[[Any], Any] | None, tokens: int
    ) -> None:
        self._targets, self._begins, self._pick, self._tokens = targets, begins, pick, tokens
        self.tally: Tally | None = None
        self.seconds = 0.0
        self.calls = 0  # states of the latest forward
        self._inside: list[str] = []
        self._reading = False
        self._ended = True  # of a forward that no module around it begins
        self._pending: Tensor | None = None
        self._real: Tensor | None = None

    @property
    def unmasked(self) -> bool:
        """Whether this forward is read and nobody said yet which tokens are real."""
        return self._reading and self._real is None and self.tally is None

    def masked(self, real: Tensor) -> None:
        """Hear which tokens are real: (batch, seq), not zero where they are."""
        self._real = real

    def take(self) -> Tally | None:
        """Return what was captured, and begin anew."""
        tally, self.tally = self.tally, None
        self.ended()
        return tally if tally is not None and tally.sums else None

    def ended(self) -> None:
        """Hear that a step was made, before which every forward has ended."""
        self._ended, self._reading = True, False

    def open(self, name: str, grad: bool, training: bool) -> None:
        """Hear that a module around the loops is called; the outermost begins a forward."""
        if name in self._inside:  # its end was not heard
            self._inside = self._inside[: self._inside.index(name)]
        self._inside.append(name)
        if len(self._inside) == 1:
            self._begin(grad, training)

    def close(self, name: str) -> None:
        """Hear that it returned or failed."""
        if name in self._inside:
            self._inside = self._inside[: self._inside.index(name)]
        if not self._inside:
            self._reading, self._pending, self._real = False, None, None

    def state(self, z: Tensor, grad: bool, training: bool) -> None:
        """Hear of a state."""
        if not self._inside:
            self._without_surroundings(z, grad, training)
        self.calls += 1
        if self._reading and self._targets.blocks:
            self._pending = z  # the last of a block counts
        elif self._reading:
            self._add(z)

    def _without_surroundings(self, z: Tensor, grad: bool, training: bool) -> None:
        """Tell where a forward begins that no module around the state is called for."""
        expected = self._targets.calls
        if self.calls % expected == 0 if expected else self._ended or not grad:
            self._begin(grad, training)
            self._ended = not grad
            if z.requires_grad and grad and expected is None:
                z.register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        """The backward pass of a forward has come to its first state."""
        self._ended = True

    def block(self) -> None:
        """Hear that a loop's block returned."""
        if self._reading and self._pending is not None:
            self._add(self._pending)
        self._pending = None

    def pick(self, output: Any, name: str) -> Tensor:
        """Return the state in what a watched module returns: itself, or the first tensor of numbers in it."""
        found = output if self._pick is None else self._pick(output)
        z = _first(found)
        if z is None:
            raise InputError(
                f"watch: '{name}' returns {type(output).__name__} without a tensor of floating-point numbers in "
                "it: let `state` match a module that returns the state, or give output=, which takes it out."
            )
        return z

    def _begin(self, grad: bool, training: bool) -> None:
        self.calls, self._pending, self._real = 0, None, None
        self._reading = self._begins(grad, training)
        if self._reading:
            self.tally = None

    def _add(self, z: Tensor) -> None:
        began = time.perf_counter()
        own = local(z)
        if own.numel() == 0:
            return
        if self.tally is None:
            self.tally = Tally.like(own, self._real, self._tokens)
        if own.shape[-1] != self.tally.hidden:
            raise InputError(
                f"watch: the states of one forward have {self.tally.hidden} and {own.shape[-1]} channels: let `state` "
                "match the module that ends each loop, and nothing inside it."
            )
        self.tally.add(own)
        if z.requires_grad and torch.is_grad_enabled():
            z.register_hook(partial(self._gradient, self.tally, len(self.tally.sums)))
        self.seconds += time.perf_counter() - began

    def _gradient(self, tally: Tally, loop: int, gradient: Tensor) -> None:
        if tally is self.tally and loop == len(tally.sums):  # of the last loop: what its own readout sees of it
            began = time.perf_counter()
            tally.see_gradient(gradient)
            self.seconds += time.perf_counter() - began


def _first(output: Any) -> Tensor | None:
    """Return the first floating-point tensor of an output: a tensor, a tuple, a mapping, a dataclass."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim > 1 else None
    if isinstance(output, Mapping):
        output = tuple(output.values())
    elif is_dataclass(output):
        output = tuple(getattr(output, field.name, None) for field in fields(output))
    elif not isinstance(output, tuple | list):
        return None
    return next((z for z in map(_first, output) if z is not None), None)
