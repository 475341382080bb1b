"""Progress: one bar with the time left, for work that turns out to be slow.

In a terminal it is one live line on stderr that goes when the work is done; elsewhere, a plain line now and then.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from loopscale.display.numbers import duration
from loopscale.display.terminal import console
from loopscale.display.text import inert

SHOW_AFTER_SECONDS = 2.0
LINE_EVERY_SECONDS = 30.0

T = TypeVar("T")
Advance = Callable[[int], None]


@runtime_checkable
class Track(Protocol):
    """Passes the items of a long measurement on and may show how far it is."""

    def __call__(self, sequence: Sequence[T], description: str) -> Iterable[T]:
        """Return the items, in order."""
        ...


def untracked(sequence: Sequence[T], description: str) -> Iterable[T]:
    """Return the items and show nothing."""
    return sequence


def tracker(label: str = "", quiet: bool = False) -> Track:
    """Return the `Track` that shows progress under a label (of a model, say)."""

    def track(sequence: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        known = total if total is not None else len(sequence) if isinstance(sequence, Sequence) else None
        with progress_bar(f"{label}: {description}" if label else description, known, quiet) as advance:
            for item in sequence:
                yield item
                advance(1)

    return track


@contextmanager
def progress_bar(what: str, total: int | None, quiet: bool = False) -> Iterator[Advance]:
    """Yield `advance(n)`; nothing is shown before the work has taken `SHOW_AFTER_SECONDS`."""
    if quiet or sys.stderr is None:
        yield lambda n: None
        return
    shown = _bar(what, total) if sys.stderr.isatty() else _lines(what, total)
    with shown as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console(stderr=True), transient=True)
    task = bar.add_task(inert(what), total=total)
    begun = time.monotonic()

    def advance(n: int) -> None:
        if time.monotonic() - begun > SHOW_AFTER_SECONDS:
            bar.start()
        bar.advance(task, n)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def _lines(what: str, total: int | None) -> Iterator[Advance]:
    said_at = begun = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, said_at
        done += n
        now = time.monotonic()
        if now - said_at > LINE_EVERY_SECONDS and done:
            said_at = now
            left = f"{done / total:.0%}, {duration((now - begun) * (total - done) / done)} left" if total else f"{done}"
            console(stderr=True).print(Text(f"{inert(what)}: {left}"), soft_wrap=True)

    yield advance
