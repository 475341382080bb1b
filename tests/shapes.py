"""Shape checks on a sample of the calls of every function whose signature states a shape.

jaxtyping's import hook wraps every function of the package and checks every call, which took half of the suite's time.
A wrong shape shows in the first calls, and types without a shape are mypy's to check.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import jaxtyping

FIRST, EVERY = 8, 16  # of one function in one test: all of the first calls, then one in so many

#: Calls of each function in the test that runs.
calls: Counter[Callable[..., Any]] = Counter()
_checked = jaxtyping.jaxtyped


def install() -> None:
    """Let jaxtyping's import hook decorate by what stands here."""
    jaxtyping.jaxtyped = _sampled


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """Leave shapes unchecked altogether: others check them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def _sampled(decorated: Any = None, *, typechecker: Any) -> Any:
    if decorated is None:
        return functools.partial(_sampled, typechecker=typechecker)
    if not any(map(_states_shape, _annotations(decorated))):
        return decorated
    if not inspect.isfunction(decorated):  # a dataclass, whose making is checked
        return _checked(decorated, typechecker=typechecker)
    checked = _checked(decorated, typechecker=typechecker)

    @functools.wraps(decorated)
    def sampled(*args: Any, **kwargs: Any) -> Any:
        calls[decorated] += 1
        count = calls[decorated]
        return (checked if count <= FIRST or count % EVERY == 0 else decorated)(*args, **kwargs)

    return sampled


def _annotations(decorated: Any) -> Iterator[Any]:
    for part in (decorated, getattr(decorated, "fget", None), getattr(decorated, "__func__", None)):
        yield from getattr(part, "__annotations__", {}).values()


def _states_shape(annotation: Any) -> bool:
    if isinstance(annotation, str):  # not evaluated yet: rather once too often
        return "Tensor" in annotation
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_states_shape, get_args(annotation)))
