"""A progress bar with time left, for work that turns out to be slow."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SHOW_AFTER_SECONDS = 2.0


@contextmanager
def progress_when_slow(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; a bar appears on stderr once the work has taken `SHOW_AFTER_SECONDS`."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
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
