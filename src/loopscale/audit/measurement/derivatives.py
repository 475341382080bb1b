"""The two derivatives an audit is made of: what a loss feels at a state, and what one more loop makes of a move."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscale.call import Call
from loopscale.facts import Reads, facts_of
from loopscale.objective import IGNORED, Labels
from loopscale.stepping import Looped, State

ROUNDING = 1e-3  # the largest share of a gradient that may be rounding: from this share on a loss sees a coordinate
FLOOR = 2.0**-10  # of a row's median; a token below it would weigh a thousand times as much as the others in a ratio


def push(f: Callable[[Tensor], Tensor], z: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(z) and the exact derivative of f at `z` along `xi` (a Jacobian-vector product).

    Forward-mode differentiation, so that memory is that of inference; a function with an operation that has no forward
    mode is differentiated twice in reverse instead. Attention runs on its plain kernel: the fused ones have neither.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            return _push_forward(f, z, xi)
        except torch.OutOfMemoryError:  # a RuntimeError that the dearer way would only repeat
            raise
        except (NotImplementedError, RuntimeError):  # no forward mode, or a custom autograd function without jvp
            return _push_by_two_reverses(f, z, xi)


@cache
def _load_forward_mode() -> None:
    """Make torch load its forward-mode rules, which it does at the first dual tensor, quietly: it warns of itself."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.ones(1))


def _push_forward(f: Callable[[Tensor], Tensor], z: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    _load_forward_mode()
    with torch.no_grad(), forward_ad.dual_level():
        out, tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(z.detach(), xi.detach().contiguous())))
        return out, torch.zeros_like(out) if tangent is None else tangent


def _push_by_two_reverses(f: Callable[[Tensor], Tensor], z: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        out = f(z)
        cotangent = torch.zeros_like(out, requires_grad=True)
        (pulled,) = torch.autograd.grad(out, z, cotangent, create_graph=True, materialize_grads=True)
        (tangent,) = torch.autograd.grad(pulled, cotangent, xi.detach(), materialize_grads=True)
    return out.detach(), tangent.detach()


def exit_gradient(model: Looped | Call, z: State, k: int, labels: Labels) -> tuple[State, Float[Tensor, "batch seq"]]:
    """Return the gradient at `z` of the summed cross-entropy of exit k, through its readout alone, and the losses.

    A readout that looks at the tokens of a call is read in that call.
    """
    gradient, losses = facts_of(model).losses.exits.gradient(Reads(model), z, k, labels)
    assert losses is not None  # those of a cross-entropy come with it
    return gradient, losses


def alignment(g: State, xi: State) -> Float[Tensor, "batch seq"]:
    """Return |<g, xi>| / (||g|| ||xi||) of every token; 0 where one of them is zero."""
    return (unit(g) * unit(xi)).sum(-1).abs()


def mean_alignment(
    gradient: State, losses: Float[Tensor, "batch seq"], xi: State, labels: Labels
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Return the mean alignment of the tokens whose label counts and whose gradient can be read, and how many they are.

    Without any the mean is NaN.
    """
    counted = (labels != IGNORED) & telling(gradient, losses)
    read = counted.sum()
    return torch.where(counted, alignment(gradient, xi), 0.0).sum() / read, read


def telling(gradient: State, losses: Float[Tensor, "batch seq"] | None) -> Bool[Tensor, "batch seq"]:
    """Return the tokens whose gradient has a direction that can be read.

    Below the smallest normal number over its relative precision a gradient is rounded to so few digits that where it
    points is chance. With the `losses` of a cross-entropy, tokens are also left out below `ROUNDING` of what a token
    can lose: the gradient softmax - one-hot is a difference there of numbers that are nearly equal.
    """
    known = torch.finfo(gradient.dtype)
    told = gradient.abs().amax(-1) >= known.tiny / known.eps
    return told if losses is None else told & (losses >= torch.finfo(losses.dtype).eps / ROUNDING)


def comparable(values: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """Return the counted tokens whose value can be divided by: not below `FLOOR` of their row's median.

    The median is taken over magnitudes that are not zero, so that neither one token nor many that are zero decide it.
    """
    size = values.abs()
    median = torch.where(counted & (size > 0), size, torch.nan).nanmedian(-1, keepdim=True).values
    return counted & (size > 0) & (size >= FLOOR * median)


def unit(x: State) -> State:
    """Return unit vectors, zeros for zeros."""
    # largest first: behind a large scale a gradient is so small that its squares underflow
    largest = x.abs().amax(-1, keepdim=True)
    x = torch.where(largest > 0, x / largest, 0.0)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(length > 0, x / length, 0.0)
