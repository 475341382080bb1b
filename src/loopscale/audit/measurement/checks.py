"""Checks of a model's verbs, of coordinates and of figures, in words, before anything is measured."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor

from loopscale.audit.coordinates import Coordinate
from loopscale.batches import Batches, Window, windows_of
from loopscale.call import Call
from loopscale.errors import VERBS, InputError, require_looped
from loopscale.facts import facts_of
from loopscale.state import norm
from loopscale.stepping import Looped, State
from loopscale.system.precision import autocast_dtype


def checked(model: Looped | Any, batches: Batches) -> tuple[Window, Iterator[Window]]:
    """Return the first batch, on which the verbs were tried, and all of them, each with labels that the model knows.

    Raises `InputError` for a model that is no looped one, a verb that breaks a promise, and batches of another form.
    """
    windows = windows_of(model, batches, facts_of(model).padding)
    first = next(windows)  # where there is none, it says so
    vocab_size = check_verbs(model, first.inputs)
    return first, (_with_known_labels(window, vocab_size) for window in chain([first], windows))


def check_verbs(model: object, input_ids: Tensor) -> int:
    """Try every verb at every loop on a few tokens of `input_ids` (batch, seq); return the size of the vocabulary.

    Raises `InputError` that says which verb breaks which promise: a missing verb, one that fails, a wrong shape, a
    result that is not finite, that changes from call to call, that changes its input, or that no gradient reaches.
    """
    require_looped(model)
    _call(_begun(model, input_ids), "embed")  # the whole batch: too long, or ids that are no tokens, show here
    ids = few_tokens(model, input_ids)
    call = _begun(model, ids)
    h = _floats("embed", _call(call, "embed"))
    if h.ndim != 3 or h.shape[:2] != ids.shape:
        raise _broken("embed", f"returned {_shape(h)} for tokens {_shape(ids)}", "return (batch, seq, hidden)")
    _check_same("embed", h.clone(), _floats("embed", _call(_begun(model, ids), "embed")))
    K = call.num_loops
    sizes = []
    for k in range(K):
        z = _keeps_shape("step", _repeatable(call, "step", h, k), h)
        logits = _repeatable(call, "readout", z, k)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise _broken("readout", f"returned {_shape(logits)} for a state {_shape(z)}", "return (batch, seq, vocab)")
        sizes.append(logits.shape[-1])
        if sizes[k] != sizes[0]:
            what = f"returned {sizes[0]} logits at k = 0 and {sizes[k]} at k = {k}"
            raise _broken("readout", what, "decode every exit into one vocabulary")
        _check_gradient(call, "step", h, k)
        _check_gradient(call, "readout", z, k)
        if k + 1 < K:
            _check_gradient(call, "carry", z, k)
            h = _keeps_shape("carry", _repeatable(call, "carry", z, k), z)
    return sizes[0]


def first_state(call: Call) -> State:
    """Return the state of loop 1; what `embed` and `step` raise on this batch becomes a sentence."""
    return _call(call, "step", _call(call, "embed"), 0)


def check_coordinates(coordinates: Sequence[Coordinate | Any], z: State) -> None:
    """Try the coordinates on a state; raises `InputError` for one that is none, fails, or gives a wrong shape."""
    if not coordinates:
        raise InputError("there is no coordinate to audit: give at least one.")
    seen = set()
    for coordinate in coordinates:
        if not isinstance(coordinate, Coordinate):
            raise InputError(f"{coordinate!r} is no coordinate: give `scale`, `mean`, `direction(v)` or your own.")
        name = coordinate.name
        if name in seen:
            raise InputError(f"two coordinates are called '{name}': give each a name of its own.")
        seen.add(name)
        try:
            value, tangent = coordinate.value(z), coordinate.tangent(z)
        except Exception as error:  # whatever someone else's code raises
            raise InputError(
                f"coordinate '{name}' failed on a state {_shape(z)} with {type(error).__name__}: {error}."
            ) from error
        if value.shape != z.shape[:2] or tangent.shape != z.shape:
            raise InputError(
                f"coordinate '{name}' gave a value {_shape(value)} and a tangent {_shape(tangent)} for a state "
                f"{_shape(z)}: return (batch, seq) and (batch, seq, hidden)."
            )


def runs_past_trained_depth(model: Looped, input_ids: Tensor, num_loops: int) -> bool:
    """Return whether the step can be applied once more than `num_loops` times (a step per loop index cannot)."""
    call = Call(model, few_tokens(model, input_ids))
    h = call.embed()
    z = call.step(h, 0)
    try:
        call.received[num_loops - 1] = h  # of another loop: only whether the next one runs is asked
        after = call.step(call.carry(z, num_loops - 1), num_loops)
    except Exception:  # a table of K entries, an assertion: someone else's code answers to loop K as it likes
        return False
    return bool(torch.isfinite(after).all())


def few_tokens(model: Looped | Any, input_ids: Tensor) -> Tensor:
    """Return two rows of 8 tokens, or the whole batch where the model takes no other size."""
    few = input_ids[:2, :8]
    try:
        call = Call(model, few)
        z = call.step(call.embed(), 0)
        call.readout(z, 0)
    except Exception:  # if it is not the size, the whole batch fails too, and that is told
        return input_ids
    return input_ids if z.ndim == 3 and z.shape[:2] != few.shape else few


@final
class Finite:
    """What was measured of one batch, and whether it is finite: asked once, when all loops have run.

    A look at every loop would make an accelerator wait at every loop.
    """

    def __init__(self) -> None:
        self._flags: dict[str, Tensor] = {}

    def note(self, x: Tensor, what: str, counted: Tensor | None = None) -> None:
        """Take in a tensor (batch, seq, hidden), of the tokens that count."""
        finite = torch.isfinite(x)
        self._flags[what] = (finite if counted is None else finite.all(-1) | ~counted).all()

    def note_state(self, z: State, k: int) -> None:
        """Take in the state of loop k, and whether its squares can be added."""
        self.note(norm(z)[..., None], f"the state of loop {k + 1}, or the sum of its squares,")

    def require(self) -> None:
        """Raise `InputError` that names the first that is not finite."""
        for what, finite in zip(self._flags, torch.stack([*self._flags.values()]).tolist(), strict=True):
            if not finite:
                raise InputError(f"{what} is not finite: there is nothing to measure.")


def require_told(tokens: int, k: int) -> None:
    """Check that some token's gradient of exit k tells where it points; raises `InputError`."""
    if not tokens:
        raise InputError(
            f"the gradient of exit {k + 1} is zero at every token: a head of zeros or losses of zero see nothing. "
            "Audit a model that has been trained a little, or on another text."
        )


def _with_known_labels(window: Window, vocab_size: int) -> Window:
    labels = window.labels.masked_fill(~window.counted, 0)
    for label in (int(labels.max()), int(labels.min())):
        if not 0 <= label < vocab_size:
            raise InputError(
                f"a label is {label}, but the readout has {vocab_size} logits: use the tokenizer that the model was "
                "trained with."
            )
    return window


def _begun(model: object, input_ids: Tensor) -> Call:
    """Return a call of the model; what its `context` raises becomes a sentence."""
    try:
        return Call(model, input_ids)
    except InputError:
        raise
    except Exception as error:  # whatever someone else's code raises
        raise InputError(
            f"`context(tokens)` failed with {type(error).__name__}: {error}: make it run first."
        ) from error


def _call(call: Call, verb: str, *args: Any) -> Any:
    """Call a verb; what it raises becomes a sentence."""
    try:
        return getattr(call, verb)(*args)
    except InputError:
        raise
    except Exception as error:  # whatever someone else's code raises
        at = f" at k = {args[1]}" if len(args) > 1 else ""
        assert call.context.tokens is not None
        shape = _shape(args[0] if args else call.context.tokens)
        raise _broken(
            verb, f"failed{at} on {shape} with {type(error).__name__}: {error}", "make it run first"
        ) from error


def _repeatable(call: Call, verb: str, x: Tensor, k: int) -> Tensor:
    """Call a verb on `x`, on something else and on `x` again: what it returns must not change, nor may `x`."""
    original = x.clone()
    first = _floats(verb, _call(call, verb, x, k)).clone()
    if not torch.equal(x, original):
        raise _broken(verb, "changes its input in place", "work on a copy")
    _call(call, verb, x.flip(0, 1) * 0.5 + 1.0, 0)
    again = _floats(verb, _call(call, verb, original.clone(), k))
    _check_same(verb, first, again)
    return first


def _check_same(verb: str, first: Tensor, again: Tensor) -> None:
    rounding = 1e-6 * float(first[first.isfinite()].abs().max())  # of sums that cancel, at the size of what is summed
    if again.shape != first.shape or not torch.allclose(again, first, rtol=1e-4, atol=rounding):
        raise _broken(
            verb,
            "answers the same input differently after another call",
            "keep no state between calls, and switch dropout off (eval mode)",
        )


def _floats(verb: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise _broken(verb, f"returned {found}", "return a floating-point tensor")
    if x.dtype.itemsize < 4:
        remedy = "audit outside autocast" if autocast_dtype(x.device.type) else "audit model.float()"
        raise _broken(verb, f"returned {x.dtype}, whose rounding hides what is measured", remedy)
    usable = torch.isfinite(x) | (x == -torch.inf) if verb == "readout" else torch.isfinite(x)  # -inf: never a token
    if not usable.all():
        raise _broken(verb, "returned numbers that are not finite", "check the weights")
    return x


def _keeps_shape(verb: str, x: Tensor, like: Tensor) -> Tensor:
    if x.shape != like.shape:
        raise _broken(verb, f"returned {_shape(x)} for {_shape(like)}", "return the shape it was given")
    return x


def _check_gradient(call: Call, verb: str, x: Tensor, k: int) -> None:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = _call(call, verb, x, k)
        gradient = None
        if out.requires_grad:
            (gradient,) = torch.autograd.grad(out.square().sum(), x, allow_unused=True)
    if gradient is None:
        remedy = "compute the result from its first argument, without detach or no_grad, also if training cuts loops"
        raise _broken(verb, "passes no gradient to the state it is given", remedy)


def _broken(verb: str, what: str, remedy: str) -> InputError:
    return InputError(f"`{VERBS[verb]}` {what}: {remedy}.")


def _shape(x: Tensor) -> str:
    return f"({', '.join(map(str, x.shape))})"
