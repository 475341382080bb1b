"""Full disks and lost folders while a run trains: one sentence, and what was saved before is gone on from, exactly.

In a mount namespace of its own, which file systems of a few hundred kilobytes need: `unshare -Urm python -m
benchmarks.trials full`.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.trials.damage import outcome
from benchmarks.trials.forks import forked
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import tiny_run
from loopscale.train import RunConfig, train


class At(TrainerCallback):
    """Does something to the disk before a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step - 1:
            self.act()


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return disks and caches that fill, of sizes drawn at random, and folders that are lost: so many in all."""
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    disk, log = place / "disk", place / "said.txt"
    (place / "small").mkdir()
    disk.mkdir()
    run = tiny_run(place, evaluate_every=0, monitor_every=0)
    ended = forked(lambda: int(train(run, quiet=True) is None), log)
    assert ended.status == 0, ended.said
    whole, on_disk = outcome(run.folder), replace(run, out=str(disk / "inner" / "run"))
    lost: list[tuple[str, Any, int]] = [
        ("read-only", At(4, lambda: _read_only(disk)), 4000),
        ("parent renamed", At(4, lambda: (disk / "inner").rename(disk / "renamed")), 4000),
        ("parent removed", At(4, lambda: shutil.rmtree(disk / "inner")), 4000),
    ]
    draw = random.Random(seed)
    caches = [draw.choice(range(4, 20, 4)) for _ in range(3)]
    disks = [draw.randrange(40, 400) for _ in range((number or 14) - len(lost) - len(caches))]
    return [
        *(
            Case(f"disk of {size} KB", partial(_disk, f"{size} KB", on_disk, disk, None, size, whole, log))
            for size in disks
        ),
        *(Case(name, partial(_disk, name, on_disk, disk, act, size, whole, log)) for name, act, size in lost),
        *(Case(f"cache of {size} KB", partial(_cache, run, place, size, log)) for size in caches),
    ]


def _disk(
    name: str,
    run: RunConfig,
    disk: Path,
    callback: TrainerCallback | None,
    size: int,
    whole: tuple[str, ...],
    log: Path,
) -> Record:
    """Train where the disk fills or is lost, then go on there once that is mended."""
    _mount(disk, f"size={size}k")
    first = forked(partial(_train, run, callback), log)
    if name == "read-only":
        subprocess.run(["umount", str(disk)], check=True)
    _mount(disk, "remount,size=9000k")
    if (disk / "renamed").exists():
        shutil.rmtree(disk / "inner", ignore_errors=True)
        (disk / "renamed").rename(disk / "inner")
    second = forked(partial(_train, run, None), log)
    is_exact = second.status == 0 and outcome(run.folder) == whole
    subprocess.run(["umount", str(disk)], check=True)
    is_done = first.status == 0 and callback is None
    kind = "done" if is_done else "one sentence" if first.is_refused and first.is_told else "NOT TOLD"
    kind += ", then exact" if is_exact else ", THEN NOT"
    return {"kind": kind, "bad": "NOT" in kind, "said": first.said.strip()[-400:], "then": second.said.strip()[-400:]}


def _cache(run: RunConfig, place: Path, size: int, log: Path) -> Record:
    """Train with a cache on a disk that is too small."""
    small, new = place / "small", place / "new"
    shutil.rmtree(new, ignore_errors=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(small)], check=True)
    os.environ["LOOPSCALE_CACHE"] = str(small)
    ended = forked(partial(_train, replace(run, out=str(new)), None), log)
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    subprocess.run(["umount", str(small)], check=True)
    kind = "one sentence" if ended.is_refused and ended.is_told else "NOT TOLD"
    return {"kind": kind, "bad": kind.isupper(), "said": ended.said.strip()[-400:]}


def _train(run: RunConfig, callback: TrainerCallback | None) -> int:
    return int(train(run, [callback] if callback else [], quiet=True) is None)


def _read_only(disk: Path) -> None:
    """Put the same files over themselves, to be read only: a lock that is held keeps a disk from being remounted."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
