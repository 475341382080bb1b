"""Live table of a study: where every run stands, its loss and norm, and the time left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loopscale.display import duration, number

from .worker import PROGRESS_FILE, RESULT_FILE, read_report

REFRESH_SECONDS = 1.0
TRAINING_SHARE = 0.95  # of a run; the rest is measuring


@dataclass(frozen=True)
class Standing:
    """Where one run stands, in words, and the share of it that is done."""

    state: str
    step: str = ""
    loss: str = ""
    norm: str = ""
    share: float = 0.0


class LiveTable:
    """Shows the runs as they go: a live table in a terminal, else one line for each run that ends."""

    def __init__(self, console: Console, runs: Sequence[tuple[str, Path]]) -> None:
        self.console = console
        self.runs = runs
        self.start = self.last = time.monotonic()
        standings = {name: standing_of(folder) for name, folder in runs}
        self.done_before = sum(standing.share for standing in standings.values())
        self.told = {name for name, standing in standings.items() if standing.state == "done"}
        self.live = Live(self._table(), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveTable":
        if self.told:
            self.console.print(f"{len(self.told)} of {len(self.runs)} runs were finished before")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self._tell()

    def tick(self) -> None:
        """Refresh, at most once a second."""
        if time.monotonic() - self.last < REFRESH_SECONDS:
            return
        self.last = time.monotonic()
        self._tell()
        if self.console.is_terminal:
            self.live.update(self._table(), refresh=True)

    def _tell(self) -> None:
        """Print one line for each run that has ended since."""
        for name, folder in self.runs:
            if name not in self.told and (standing := standing_of(folder)).state == "done":
                self.told.add(name)
                left = f", {self._left()} left" if len(self.told) < len(self.runs) else ""
                count = f"{len(self.told)} of {len(self.runs)}{left}"
                words = f"{name}: perplexity {standing.loss}, norm {standing.norm} ({count})"
                self.console.print(Text(words), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(title=f"time left: {self._left()}", title_justify="left")
        for heading in ("run", "state", "step", "loss by exit", "norm by loop"):
            table.add_column(heading, justify="left" if heading in {"run", "state"} else "right")
        for name, folder in self.runs:
            standing = standing_of(folder)
            cells = (name, standing.state, standing.step, standing.loss, standing.norm)
            table.add_row(*map(Text, cells))
        return table

    def _left(self) -> str:
        """Return the time left at the rate so far, in words."""
        done = sum(standing_of(folder).share for _, folder in self.runs) - self.done_before
        if done <= 0:
            return "measuring the rate"
        return duration((time.monotonic() - self.start) * (len(self.runs) - self.done_before - done) / done)


def standing_of(folder: Path) -> Standing:
    """Return where the run in a folder stands, by what its worker wrote."""
    if (result := read_report(folder / RESULT_FILE)) is not None:
        return Standing("done", str(result["steps"]), _row(result["perplexity"]), _row(result["norm"]), 1.0)
    line = read_report(folder / PROGRESS_FILE)
    if line is None:
        return Standing("waiting")
    losses, norms = (
        [value for key, value in line.items() if key.startswith(kind)] for kind in ("loop_losses/", "loop_norms/")
    )
    share = TRAINING_SHARE * line["step"] / max(line["steps"], 1)
    return Standing(line["state"], f"{line['step']}/{line['steps']}", _row(losses), _row(norms), share)


def _row(values: Sequence[float | None]) -> str:
    return " ".join("-" if value is None else number(float(value), 3) for value in values)  # None: not finite
