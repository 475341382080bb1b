"""Work shared out among processes that have met, with the results and the failures of one process."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, final

from accelerate.utils import send_to_device

from loopscale.errors import FailedElsewhere, InputError
from loopscale.processes.meeting import TOGETHER, Group

T = TypeVar("T")
R = TypeVar("R")


@final
@dataclass(frozen=True)
class _Outcome:
    """What a process's share of some work came to: a value, or why it failed; `items` is how many were left."""

    value: Any = None
    failure: str | None = None
    items: int = 0


def each(items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """Yield `work(item)` of all items, in their order, done by whichever process.

    Every process goes over the same items and yields every result: tensors in dicts, lists and tuples, which come from
    another process on the CPU. Where an item or its work fails, all processes fail, and one of them says why.
    """
    group = TOGETHER.get()
    if group is None:
        yield from map(work, items)
        return
    waiting = iter(items)
    while True:
        outcomes = _told(group, lambda: _one_of(islice(waiting, group.size), group.rank, work))
        if len({outcome.items for outcome in outcomes}) > 1:
            raise InputError("the processes were given different numbers of batches: give all of them the same.")
        if not (left := outcomes[0].items):
            return
        yield from (outcome.value for outcome in outcomes[:left])


def _one_of(items: Iterable[T], rank: int, work: Callable[[T], R]) -> _Outcome:
    """Return what one's own of some items comes to, and how many there were."""
    own, count = [], 0
    for count, item in enumerate(items, 1):
        if count == rank + 1:
            own.append(item)
    value = send_to_device(work(own[0]), "cpu") if own else None
    return _Outcome(value, items=count)


def _told(group: Group, work: Callable[[], _Outcome]) -> list[_Outcome]:
    """Do this process's share and return the outcomes of all. Where one failed, all raise; the first of these says why.

    Errors that are no bad input are raised where they happened, with their traceback.
    """
    error: Exception | None = None
    try:
        own = work()
    except Exception as raised:
        error, own = raised, _Outcome(failure=str(raised) or type(raised).__name__)
    outcomes = group.gathered(own)
    teller = next((rank for rank, outcome in enumerate(outcomes) if outcome.failure is not None), None)
    if error is not None and (teller == group.rank or not isinstance(error, InputError)):
        raise error
    if teller is not None:
        raise FailedElsewhere(f"process {teller}: {outcomes[teller].failure}")
    return outcomes


def agreed(work: Callable[[], R]) -> R:
    """Return what `work` gives, which every process does; where it fails in one, all fail, and one says why."""
    group = TOGETHER.get()
    if group is None:
        return work()
    kept: list[R] = []

    def do() -> _Outcome:
        kept.append(work())
        return _Outcome()

    _told(group, do)
    return kept[0]


def first_alone(work: Callable[[], R]) -> R:
    """Return what `work` gives in the first process, which does it alone: clocks, and what is written once."""
    group = TOGETHER.get()
    if group is None:
        return work()
    return _told(group, lambda: _Outcome(work()) if group.rank == 0 else _Outcome())[0].value


def require_alike(what: str, value: Callable[[], Any]) -> None:
    """Raise `InputError` where a value is not the same in all processes; one that is alone does not ask for it."""
    group = TOGETHER.get()
    if group is None:
        return
    found = group.gathered(value())
    if other := next((rank for rank, theirs in enumerate(found) if theirs != found[0]), None):
        raise InputError(f"{what} is {found[0]} in process 0 and {found[other]} in process {other}: give all the same.")
