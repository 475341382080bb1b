"""Processes that a launcher started: work shared out among them, with the results and the failures of one process.

Within `shared()` measurements share their batches out, and every process has all results. Outside, each process is
alone, whoever started it: in a training, a measurement by one process must not wait for the others.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count, islice
from typing import Any, TypeVar, final

import torch
from accelerate.utils import send_to_device
from torch import distributed

from loopscale.errors import FailedElsewhere, InputError
from loopscale.system.launcher import check_ranks, processes_started

PATIENCE = timedelta(hours=12)  # for the others: rank 0 may time a large model meanwhile; one that is gone is noticed
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
TALKING = ("loopscale", "transformers")  # what only the first process logs of them would be said by each

T = TypeVar("T")
R = TypeVar("R")


@final
@dataclass(frozen=True)
class _Group:
    """The processes that work together: this one's number, how many they are, and torch's group of them."""

    rank: int
    size: int
    group: Any = None

    def gathered(self, value: R) -> list[R]:
        """Return every process's value, in their order. All of them have to ask."""
        found: list[Any] = [None] * self.size
        with _gone_is_told():
            distributed.all_gather_object(found, value, group=self.group)
        return found


@final
@dataclass(frozen=True)
class _Outcome:
    """What a process's share of some work came to: a value, or why it failed; `items` is how many were left."""

    value: Any = None
    failure: str | None = None
    items: int = 0


_together: ContextVar[_Group | None] = ContextVar("together", default=None)
_numbers = count()


def is_first() -> bool:
    """Return whether this process prints and writes: the first of those that work together, or one that is alone."""
    group = _together.get()
    return group is None or group.rank == 0


@contextmanager
def shared() -> Iterator[None]:
    """Work together with the other processes that a launcher started (torchrun, accelerate launch), if it did.

    On a machine with GPUs each process takes the one of its `LOCAL_RANK`. Processes beside the first log errors alone.

    Raises `InputError` where a launcher's variables are half set.
    """
    if _together.get() is not None or check_ranks() or processes_started() == 1:
        yield
        return
    with ExitStack() as stack:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        place = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        kept, rank, size = _store(*place)
        # what torchrun starts again finds the same store, and a training after this begins anew in it
        store = distributed.PrefixStore(f"loopscale-{os.environ.get(RESTARTS, 0)}-{next(_numbers)}", kept)
        stack.enter_context(_each_sentence_once(store))
        group = None
        with _gone_is_told():
            if distributed.is_initialized():
                group = distributed.new_group(backend="gloo", timeout=PATIENCE)
            else:
                distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
        stack.callback(distributed.destroy_process_group, group)
        if rank:
            stack.enter_context(_errors_alone())
        before = _together.set(_Group(rank, size, group))
        stack.callback(_together.reset, before)
        yield
        with _gone_is_told():
            distributed.barrier(group)  # a launcher ends the others where one ends with a status of its own


@cache
def _store(address: str, port: str) -> tuple[Any, int, int]:
    """Return torch's store, which stays until this process ends, this one's number, and how many there are."""
    return next(distributed.rendezvous("env://"))


@contextmanager
def _each_sentence_once(store: Any) -> Iterator[None]:
    """Let what several processes fail with alike be told by one of them."""
    try:
        yield
    except FailedElsewhere:
        raise
    except InputError as error:
        sentence = hashlib.sha256(str(error).encode(errors="replace")).hexdigest()
        try:
            told = store.add(sentence, 1) > 1
        except RuntimeError:  # who kept the store is gone, and has told
            told = True
        if told:
            raise FailedElsewhere(str(error)) from error
        raise


@contextmanager
def _gone_is_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's, of a connection that is closed
        raise InputError(
            "another process of this launch is gone: it, or the launcher, says what ended it; start them again."
        ) from error


@contextmanager
def _errors_alone() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in TALKING]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def each(items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """Yield `work(item)` of all items, in their order, done by whichever process.

    Every process goes over the same items and yields every result: tensors in dicts, lists and tuples, which come from
    another process on the CPU. Where an item or its work fails, all processes fail, and one of them says why.
    """
    group = _together.get()
    if group is None:
        yield from map(work, items)
        return
    waiting = iter(items)
    while True:
        outcomes = _told(group, lambda: _one_of(list(islice(waiting, group.size)), group.rank, work))
        if len({outcome.items for outcome in outcomes}) > 1:
            raise InputError("the processes were given different numbers of batches: give all of them the same.")
        if not (left := outcomes[0].items):
            return
        yield from (outcome.value for outcome in outcomes[:left])


def _one_of(items: list[T], rank: int, work: Callable[[T], R]) -> _Outcome:
    """Return what one's own of some items comes to, and how many there were."""
    value = send_to_device(work(items[rank]), "cpu") if rank < len(items) else None
    return _Outcome(value, items=len(items))


def _told(group: _Group, work: Callable[[], _Outcome]) -> list[_Outcome]:
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
    group = _together.get()
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
    group = _together.get()
    if group is None:
        return work()
    return _told(group, lambda: _Outcome(work()) if group.rank == 0 else _Outcome())[0].value


def require_alike(what: str, value: Any) -> None:
    """Raise `InputError` where a value is not the same in all processes."""
    group = _together.get()
    if group is None:
        return
    found = group.gathered(value)
    if other := next((rank for rank, theirs in enumerate(found) if theirs != found[0]), None):
        raise InputError(f"{what} is {found[0]} in process 0 and {found[other]} in process {other}: give all the same.")
