"""Processes that a study starts itself: one of them killed at a random moment or when a file appears; which are left.

They are told by their command line, which names the run's folder, so that also one whose study is gone is found.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import final

import psutil

PATIENCE = 60  # seconds in which the processes of a killed study save and end
# what a run leaves as it goes on, by the pattern that shows it
POINTS = {
    "cache": "cache/**/*",
    "run.json": "study/*/seed-*/run.json",
    "checkpoint being written": "study/*/seed-*/checkpoints/.staging*/*",
    "checkpoint moved": "study/*/seed-*/checkpoints/checkpoint-*",
    "a later checkpoint, rotation": "study/*/seed-*/checkpoints/checkpoint-1[02]",
    "final save": "study/*/seed-*/model.safetensors",
    "training.json": "study/*/seed-*/training.json",
    "between report and mark": "study/*/seed-*/result.json",
}


def workers(place: Path) -> Iterator[psutil.Process]:
    """Yield the processes that work below a folder."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "loopscale.study.worker" in words and any(word.startswith(f"{place}/") for word in words):
            yield process


def left_alive(place: Path) -> int:
    """Return how many processes below a folder have not ended after a while; end them."""
    alive = psutil.wait_procs(list(workers(place)), timeout=PATIENCE)[1]
    for process in alive:
        process.kill()
    return len(alive)


@final
class Aim:
    """A point drawn at random, and the process of the study that is killed once it is there."""

    def __init__(self, place: Path, draw: random.Random, seconds: float) -> None:
        self.place, self.draw = place, draw
        self.point = draw.choice(["a random moment", *POINTS])
        self.moment = time.monotonic() + draw.uniform(0.1, 0.9) * seconds
        self.seen, self.has_killed = self._there(), False

    def look(self) -> None:
        """Kill if it is time."""
        if self.has_killed or not (
            self._there() - self.seen if self.point in POINTS else time.monotonic() > self.moment
        ):
            return
        if found := list(workers(self.place)):
            self.draw.choice(found).kill()
            self.has_killed = True

    def _there(self) -> set[Path]:
        if self.point not in POINTS:
            return set()
        try:
            return set(self.place.glob(POINTS[self.point]))
        except FileNotFoundError:  # a folder went while it was looked through
            return set()
