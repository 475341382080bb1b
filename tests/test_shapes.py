"""Shapes are checked under pytest: the first calls of every function that states one, and a sample of the rest."""

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor

from loopscale import state
from tests import shapes


@jaxtyping.jaxtyped(typechecker=beartype)
def summed(a: Float[Tensor, "batch seq"], b: Float[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    return (a + b).sum(-1)


def told(calls):
    """Return which of so many wrong calls are told."""
    wrong = []
    for call in range(1, calls + 1):
        try:
            summed(torch.ones(2, 3), torch.ones(1, 3))
        except jaxtyping.TypeCheckError:
            wrong.append(call)
    return wrong


def test_a_wrong_shape_is_told_in_the_first_calls_and_in_some_of_the_rest():
    first = list(range(1, shapes.FIRST + 1))
    assert told(2 * shapes.EVERY) == [*first, shapes.EVERY, 2 * shapes.EVERY]


def test_every_test_counts_anew():
    assert told(1) == [1]


def test_the_packages_own_functions_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        state.scale("no tensor")


def test_a_function_without_shapes_is_left_as_it_is():
    def plain(a: int) -> int:
        return a

    assert jaxtyping.jaxtyped(typechecker=beartype)(plain) is plain
