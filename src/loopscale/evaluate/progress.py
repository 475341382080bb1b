"""How a long measurement tells how far it is: a function that passes a sequence's items on."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Track(Protocol):
    """Passes items on and may show progress; `rich.progress.track` is one."""

    def __call__(self, sequence: Sequence[T], description: str) -> Iterable[T]:
        """Return the items, in order."""
        ...


def untracked(sequence: Sequence[T], description: str) -> Iterable[T]:
    """Return the items and show nothing."""
    return sequence
