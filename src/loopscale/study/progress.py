"""The live table of a study: where every run stands, its loss and norm, and the time left."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loopscale.study.worker import PROGRESS_FILE, RESULT_FILE, read_report

REFRESH_SECONDS = 1.0


class Monitor:
    """Shows the runs as they go: a live table in a terminal, else one line for each run that ends."""

    def __init__(self, console: Console, runs: Sequence[tuple[str, Path]]) -> None:
        self.console = console
        self.runs = runs
        self.start = self.last = time.monotonic()
        self.done_before = sum(_progress(folder)["share"] for _, folder in runs)
        self.told = {name for name, folder in runs if _progress(folder)["state"] == "done"}
        self.live = Live(self._table(), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Monitor":
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
            if name not in self.told and (progress := _progress(folder))["state"] == "done":
                self.told.add(name)
                left = f", {self._left()} left" if len(self.told) < len(self.runs) else ""
                self.console.print(
                    f"{name}: perplexity {progress['loss']}, norm {progress['norm']} "
                    f"({len(self.told)} of {len(self.runs)}{left})",
                    highlight=False,
                )

    def _table(self) -> Table:
        table = Table(title=f"time left: {self._left()}", title_justify="left")
        for heading in ("run", "state", "step", "loss by exit", "norm by loop"):
            table.add_column(heading, justify="left" if heading in {"run", "state"} else "right")
        for name, folder in self.runs:
            progress = _progress(folder)
            table.add_row(name, *(str(progress[key]) for key in ("state", "step", "loss", "norm")))
        return table

    def _left(self) -> str:
        """Return the time left at the rate so far, in words."""
        done = sum(_progress(folder)["share"] for _, folder in self.runs) - self.done_before
        if done <= 0:
            return "measuring the rate"
        left = (time.monotonic() - self.start) * (len(self.runs) - self.done_before - done) / done
        return f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"


def _progress(folder: Path) -> dict[str, Any]:
    """Return a run's state, step, loss and norm in words, and the share of it that is done."""
    if (result := read_report(folder / RESULT_FILE)) is not None:
        values = {"loss": result["perplexity"], "norm": result["norm"]}
        return {"state": "done", "step": result["steps"], "share": 1.0} | {k: _row(v) for k, v in values.items()}
    line = read_report(folder / PROGRESS_FILE)
    if line is None:
        return {"state": "waiting", "step": "", "loss": "", "norm": "", "share": 0.0}
    losses = [value for key, value in line.items() if key.startswith("loop_losses/")]
    norms = [value for key, value in line.items() if key.startswith("loop_norms/")]
    return {
        "state": line["state"],
        "step": f"{line['step']}/{line['steps']}",
        "loss": _row(losses),
        "norm": _row(norms),
        "share": 0.95 * line["step"] / line["steps"],  # the rest is measuring
    }


def _row(values: Sequence[float | None]) -> str:
    return " ".join("-" if value is None else f"{value:.3g}" for value in values)  # None: not finite
