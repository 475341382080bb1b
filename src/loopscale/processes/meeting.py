"""Meeting of the processes that a launcher started, for as long as they work together."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar, final

import torch
from torch import distributed

from loopscale.errors import FailedElsewhere, InputError
from loopscale.system.launcher import check_ranks, processes_started

PATIENCE = timedelta(hours=12)  # for the others: rank 0 may time a large model meanwhile; one that is gone is noticed
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
TALKING = ("loopscale", "transformers")  # what only the first process logs of them would be said by each

R = TypeVar("R")


@final
@dataclass(frozen=True)
class Group:
    """The processes that work together: this one's number, how many they are, and torch's group of them."""

    rank: int
    size: int
    group: Any = None

    def gathered(self, value: R) -> list[R]:
        """Return every process's value, in their order. All of them have to ask."""
        found: list[Any] = [None] * self.size
        with gone_is_told():
            distributed.all_gather_object(found, value, group=self.group)
        return found


TOGETHER: ContextVar[Group | None] = ContextVar("together", default=None)
_numbers = count()


def is_first() -> bool:
    """Return whether this process prints and writes: the first of those that work together, or one that is alone."""
    group = TOGETHER.get()
    return group is None or group.rank == 0


@contextmanager
def shared() -> Iterator[None]:
    """Work together with the other processes that a launcher started (torchrun, accelerate launch), if it did.

    On a machine with GPUs each process takes the one of its `LOCAL_RANK`. Processes beside the first log errors alone.

    Raises `InputError` where a launcher's variables are half set.
    """
    if TOGETHER.get() is not None or check_ranks() or processes_started() == 1:
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
        with gone_is_told():
            if distributed.is_initialized():
                group = distributed.new_group(backend="gloo", timeout=PATIENCE)
            else:
                distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
        stack.callback(distributed.destroy_process_group, group)
        if rank:
            stack.enter_context(_errors_alone())
        before = TOGETHER.set(Group(rank, size, group))
        stack.callback(TOGETHER.reset, before)
        yield
        with gone_is_told():
            distributed.barrier(group)  # a launcher ends the others where one ends with a status of its own


@cache
def _store(address: str, port: str) -> tuple[Any, int, int]:
    """Return torch's store, which stays until this process ends, this one's number, and how many there are."""
    try:
        return next(distributed.rendezvous("env://"))
    except (RuntimeError, ValueError) as error:  # torch's, of a store, and of a port that is no number
        raise InputError(
            f"the processes cannot meet at MASTER_ADDR={address} MASTER_PORT={port} ({_first_line(error)}): start them "
            "with torchrun, with an address and a free port that all of them reach."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


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
def gone_is_told() -> Iterator[None]:
    """Raise `InputError` where the connection to another process is closed."""
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
