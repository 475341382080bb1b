"""Are the four verbs what they claim to be? Asked in words before anything is measured."""

from collections.abc import Callable

import torch
from torch import Tensor

from loopscale.errors import InputError
from loopscale.stepping import Looped, Tokens

VERBS = {
    "embed": "embed(input_ids) -> h",
    "step": "step(h, k) -> z",
    "carry": "carry(z, k) -> h",
    "readout": "readout(z, k) -> logits",
}


def check_verbs(model: Looped, input_ids: Tokens) -> None:
    """Try every verb on a few tokens.

    Raises `InputError` that says which verb breaks which promise: a missing verb, a wrong shape, a result that is not
    finite, that changes from call to call, that changes its input, or that no gradient reaches.
    """
    _check_presence(model)
    ids = input_ids[:2, :8]
    h = model.embed(ids)
    _check_tensor("embed", h)
    if h.ndim != 3 or h.shape[:2] != ids.shape:
        raise _broken("embed", f"returned {_shape(h)} for tokens {_shape(ids)}", "return (batch, seq, hidden)")
    z = _try("step", model.step, h, 0)
    _same_shape("step", z, h)
    _same_shape("carry", _try("carry", model.carry, z, 0), h)
    for k in sorted({model.num_loops - 1, 0}, reverse=True):
        logits = _try("readout", model.readout, z, k)
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise _broken("readout", f"returned {_shape(logits)} for a state {_shape(z)}", "return (batch, seq, vocab)")
    _check_gradient(model, z)


def runs_past_trained_depth(model: Looped, input_ids: Tokens, num_loops: int) -> bool:
    """Return whether the step can be applied once more than `num_loops` times (a step per loop index cannot)."""
    h = model.embed(input_ids[:1, :2])
    try:
        model.step(model.carry(model.step(h, 0), num_loops - 1), num_loops)
    except (IndexError, KeyError, ValueError, RuntimeError):  # what a table of K entries answers to entry K
        return False
    return True


def _check_presence(model: object) -> None:
    missing = [f"`{VERBS[verb]}`" for verb in VERBS if not callable(getattr(model, verb, None))]
    if missing:
        raise InputError(f"{type(model).__name__} is not a looped model: it lacks {', '.join(missing)}.")
    loops = getattr(model, "num_loops", None)
    if not isinstance(loops, int) or loops < 1:
        raise InputError(f"{type(model).__name__}.num_loops is {loops!r}: give the number of loops, at least 1.")


def _try(verb: str, f: Callable[[Tensor, int], Tensor], x: Tensor, k: int) -> Tensor:
    """Call a verb on `x`, on something else and on `x` again: what it returns must not change, nor may `x`."""
    original = x.clone()
    first = f(x, k)
    _check_tensor(verb, first)
    first = first.clone()
    if not torch.equal(x, original):
        raise _broken(verb, "changes its input in place", "work on a copy")
    f(x.flip(0, 1) * 0.5 + 1.0, 0)
    again = f(original.clone(), k)
    if again.shape != first.shape or not torch.allclose(again, first, rtol=1e-4, atol=1e-6):
        raise _broken(
            verb,
            "answers the same input differently after another call",
            "keep no state between calls, and switch dropout off (eval mode)",
        )
    return first


def _check_tensor(verb: str, x: object) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise _broken(verb, f"returned {found}", "return a floating-point tensor")
    if x.dtype.itemsize < 4:
        raise _broken(verb, f"returned {x.dtype}, whose rounding hides what is measured", "audit model.float()")
    if not torch.isfinite(x).all():
        raise _broken(verb, "returned numbers that are not finite", "check the weights")


def _same_shape(verb: str, x: Tensor, like: Tensor) -> None:
    if x.shape != like.shape:
        raise _broken(verb, f"returned {_shape(x)} for {_shape(like)}", "return the shape it was given")


def _check_gradient(model: Looped, z: Tensor) -> None:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = model.readout(z, 0)
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.square().sum(), z, allow_unused=True)
    if gradient is None:
        raise _broken(
            "readout",
            "passes no gradient to the state it is given",
            "compute the logits from its argument z, without detach or no_grad",
        )


def _broken(verb: str, what: str, remedy: str) -> InputError:
    return InputError(f"`{VERBS[verb]}` {what}: {remedy}.")


def _shape(x: Tensor) -> str:
    return f"({', '.join(map(str, x.shape))})"
