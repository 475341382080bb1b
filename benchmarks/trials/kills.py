"""Kills at random and aimed points of training, evaluation and `reproduce`; what the same command then makes.

Each trajectory is killed once to three times, then left to end; weights, history and metrics are held bit by bit
against those of one that nobody killed. Children are forks of a process that has imported everything, so that a kill
costs a second; the processes that a study starts itself are killed too (`workers`).
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from benchmarks.trials.forks import Ended, forked
from benchmarks.trials.operations import Operations, kind_of
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import SUBJECTS, WORKERS, Subject
from benchmarks.trials.workers import Aim, left_alive

MOST_KILLS = 3
VARIANTS = 3
SHARE_OF_WORKERS = 0.2  # of the trajectories


@final
@dataclass(frozen=True)
class Whole:
    """What a trajectory that nobody kills makes, its operations on files and its seconds."""

    digest: Mapping[str, Any]
    operations: Sequence[str]
    seconds: float


@final
@dataclass(frozen=True)
class Trajectories:
    """A folder to work in, and the whole trajectories that are known there."""

    place: Path
    known: dict[tuple[str, int], Whole] = field(default_factory=dict)

    def whole(self, subject: Subject, variant: int) -> Whole:
        """Return the whole trajectory, made where it is not known."""
        if (subject.name, variant) not in self.known:
            self.known[subject.name, variant] = self._make(subject, _fresh(self.place / f"trial-{variant}"))
        return self.known[subject.name, variant]

    def _make(self, subject: Subject, place: Path) -> Whole:
        listed, began = self.place / "operations.txt", time.monotonic()
        listed.write_text("")

        def note(number: int, operation: str) -> None:
            with listed.open("a") as file:
                file.write(f"{operation}\n")

        ended = _child(subject, place, note)
        assert ended.status == 0, ended.said
        return Whole(subject.digest(place), listed.read_text().splitlines(), time.monotonic() - began)


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return trajectories with so many kills among them."""
    draw, found, left = random.Random(seed), list[Case](), number or 100
    trajectories = Trajectories(place)
    while left:
        in_processes = draw.random() < SHARE_OF_WORKERS
        subject, variant = WORKERS if in_processes else draw.choice(SUBJECTS), draw.randrange(VARIANTS)
        kills, own = min(draw.randint(1, MOST_KILLS), left), random.Random(draw.random())
        left -= kills
        found.append(Case(f"{subject.name} {variant}", partial(_tried, trajectories, subject, variant, kills, own)))
    return found


def _tried(trajectories: Trajectories, subject: Subject, variant: int, kills: int, draw: random.Random) -> Record:
    """Kill a trajectory so often, let it end, and compare."""
    whole = trajectories.whole(subject, variant)
    place, fell, orphans = _fresh(trajectories.place / f"trial-{variant}"), list[str](), 0
    while len(fell) < kills:
        before = _copied(place, trajectories.place / "before")
        where = _kill(subject, place, whole, draw)
        orphans += left_alive(place)
        if where is None:  # it was over before: once more from here
            _copied(before, place)
        else:
            fell.append(where)
    ended = _child(subject, place)
    found = subject.digest(place) if ended.status == 0 else {"status": ended.status}
    differing = list(_differences(whole.digest, found))[:5]
    if differing or orphans:
        shutil.copytree(place, trajectories.place / f"bad-{time.monotonic_ns()}", symlinks=True)
    kind = "ANOTHER" if differing else "LEFT PROCESSES ALIVE" if orphans else "exact"
    told = {"differing": differing, "said": ended.said.strip()[-600:]} if differing else {}
    return {"kind": f"{subject.name}: {kind}", "bad": kind.isupper(), "kills": fell, **told}


def _kill(subject: Subject, place: Path, whole: Whole, draw: random.Random) -> str | None:
    """Kill it at a random time, before an operation of a random kind, or one of its processes; None if it was over."""
    if subject is WORKERS and draw.random() < 0.6:
        return _kill_a_worker(subject, place, whole, draw)
    if draw.random() < 0.3:
        ended = _child(subject, place, after=draw.uniform(0.05, 0.95) * whole.seconds)
        return "at a random moment" if ended.status == -signal.SIGKILL else None
    kind = draw.choice(sorted({kind_of(operation) for operation in whole.operations}))
    left = draw.randrange(sum(kind_of(operation) == kind for operation in whole.operations))
    fell: list[int] = []

    def at(number: int, operation: str) -> None:
        if kind_of(operation) == kind:
            if len(fell) == left:
                os.kill(os.getpid(), signal.SIGKILL)
            fell.append(number)

    ended = _child(subject, place, at)
    if ended.status not in (0, -signal.SIGKILL):
        raise AssertionError(f"{subject.name} after a kill: status {ended.status}: {ended.said}")
    return kind if ended.status == -signal.SIGKILL else None


def _kill_a_worker(subject: Subject, place: Path, whole: Whole, draw: random.Random) -> str | None:
    """Kill a process that a study started: the study starts it again, and at last ends in a sentence that says so."""
    aim = Aim(place, random.Random(draw.random()), whole.seconds)
    ended = _child(subject, place, meanwhile=aim.look)
    if not aim.has_killed:
        return None
    if ended.status and not (ended.is_refused and "SIGKILL" in ended.said):
        raise AssertionError(f"a process killed at {aim.point}: status {ended.status}: {ended.said}")
    return f"a process of it: {aim.point}"


def _child(
    subject: Subject,
    place: Path,
    at: Callable[[int, str], None] | None = None,
    after: float | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Ended:
    """Run a subject in a fork, which calls `at` before its operations on files, and is killed after so many seconds."""

    def act() -> None:
        os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
        if at is not None:
            Operations(place, at).start()
        subject.act(place)

    return forked(act, place.parent / "said.txt", kill_after=after, meanwhile=meanwhile)


def _fresh(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _copied(place: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(place, to, symlinks=True)
    return to


def _differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, f"{where}/{i}")
    elif a != b:
        yield f"{where}: {str(a)[:80]} != {str(b)[:80]}"
