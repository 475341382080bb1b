"""Are the four verbs what they claim to be? Asked in words before anything is measured."""

from typing import Any

import torch
from torch import Tensor

from loopscale.errors import InputError
from loopscale.stepping import Looped

VERBS = {
    "embed": "embed(input_ids) -> h",
    "step": "step(h, k) -> z",
    "carry": "carry(z, k) -> h",
    "readout": "readout(z, k) -> logits",
}


def check_verbs(model: object, input_ids: Tensor) -> None:
    """Try every verb at every loop on a few tokens of `input_ids` (batch, seq).

    Raises `InputError` that says which verb breaks which promise: a missing verb, one that fails, a wrong shape, a
    result that is not finite, that changes from call to call, that changes its input, or that no gradient reaches.
    """
    check_presence(model)
    _call(model, "embed", input_ids)  # the whole batch: too long, or ids that are no tokens, show here
    ids = input_ids[:2, :8]
    h = _floats("embed", _call(model, "embed", ids))
    if h.ndim != 3 or h.shape[:2] != ids.shape:
        raise _broken("embed", f"returned {_shape(h)} for tokens {_shape(ids)}", "return (batch, seq, hidden)")
    for k in range(model.num_loops):  # type: ignore[attr-defined]  # its presence was checked
        z = _keeps_shape("step", _repeatable(model, "step", h, k), h)
        logits = _repeatable(model, "readout", z, k)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise _broken("readout", f"returned {_shape(logits)} for a state {_shape(z)}", "return (batch, seq, vocab)")
        _check_gradient(model, z, k)
        h = _keeps_shape("carry", _repeatable(model, "carry", z, k), z)


def check_labels(model: Looped, input_ids: Tensor, labels: Tensor) -> None:
    """Check that the labels are tokens of the model's vocabulary; raises `InputError`."""
    vocab_size = model.readout(model.step(model.embed(input_ids[:1, :1]), 0), 0).shape[-1]
    if int(labels.max()) >= vocab_size:
        raise InputError(
            f"a label is {int(labels.max())}, but the readout has {vocab_size} logits: use the tokenizer that the "
            "model was trained with."
        )


def runs_past_trained_depth(model: Looped, input_ids: Tensor, num_loops: int) -> bool:
    """Return whether the step can be applied once more than `num_loops` times (a step per loop index cannot)."""
    z = model.step(model.embed(input_ids[:1, :2]), 0)
    try:
        model.step(model.carry(z, num_loops - 1), num_loops)
    except (IndexError, KeyError, ValueError, RuntimeError):  # what a table of K entries answers to entry K
        return False
    return True


def check_presence(model: object) -> None:
    """Check that the four verbs and `num_loops` are there; raises `InputError`."""
    missing = [f"`{VERBS[verb]}`" for verb in VERBS if not callable(getattr(model, verb, None))]
    if missing:
        raise InputError(f"{type(model).__name__} is not a looped model: it lacks {', '.join(missing)}.")
    loops = getattr(model, "num_loops", None)
    if not isinstance(loops, int) or loops < 1:
        raise InputError(f"{type(model).__name__}.num_loops is {loops!r}: give the number of loops, at least 1.")


def _call(model: object, verb: str, *args: Any) -> Any:
    """Call a verb; what it raises becomes a sentence."""
    try:
        return getattr(model, verb)(*args)
    except InputError:
        raise
    except Exception as error:  # whatever someone else's code raises
        at = f" at k = {args[1]}" if len(args) > 1 else ""
        shape = _shape(args[0])
        raise _broken(
            verb, f"failed{at} on {shape} with {type(error).__name__}: {error}", "make it run first"
        ) from error


def _repeatable(model: object, verb: str, x: Tensor, k: int) -> Tensor:
    """Call a verb on `x`, on something else and on `x` again: what it returns must not change, nor may `x`."""
    original = x.clone()
    first = _floats(verb, _call(model, verb, x, k)).clone()
    if not torch.equal(x, original):
        raise _broken(verb, "changes its input in place", "work on a copy")
    _call(model, verb, x.flip(0, 1) * 0.5 + 1.0, 0)
    again = _floats(verb, _call(model, verb, original.clone(), k))
    if again.shape != first.shape or not torch.allclose(again, first, rtol=1e-4, atol=1e-6):
        raise _broken(
            verb,
            "answers the same input differently after another call",
            "keep no state between calls, and switch dropout off (eval mode)",
        )
    return first


def _floats(verb: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise _broken(verb, f"returned {found}", "return a floating-point tensor")
    if x.dtype.itemsize < 4:
        raise _broken(verb, f"returned {x.dtype}, whose rounding hides what is measured", "audit model.float()")
    if not torch.isfinite(x).all():
        raise _broken(verb, "returned numbers that are not finite", "check the weights")
    return x


def _keeps_shape(verb: str, x: Tensor, like: Tensor) -> Tensor:
    if x.shape != like.shape:
        raise _broken(verb, f"returned {_shape(x)} for {_shape(like)}", "return the shape it was given")
    return x


def _check_gradient(model: object, z: Tensor, k: int) -> None:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = _call(model, "readout", z, k)
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
