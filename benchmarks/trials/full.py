"""Full disks and lost folders while a run trains: one sentence, and what was saved before is gone on from, exactly.

In a mount namespace of its own, which file systems of a few hundred kilobytes need: `unshare -Urm python -m
benchmarks.trials full`.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.trials.damage import _weights
from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.kills import tiny_run
from loopscale.train import RunConfig, train


class At(TrainerCallback):
    """Does something to the disk before a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step - 1:
            self.act()


def main(number: int, seed: int, out: Path) -> int:
    """Fill so many disks at growing sizes, then lose a folder in each way; return how many were not told or lost."""
    torch.set_num_threads(1)
    place, log, bad = out / "place", out / "said.txt", 0
    shutil.rmtree(place, ignore_errors=True)
    disk = place / "disk"
    disk.mkdir(parents=True)
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    run = tiny_run(place, evaluate_every=0, monitor_every=0)
    ended = forked(lambda: int(train(run, quiet=True) is None), log)
    assert ended.status == 0, ended.said
    whole = _weights(run.folder)
    on_disk = replace(run, out=str(disk / "inner" / "run"))
    kinds: list[tuple[str, Any, Any]] = [
        *((f"{size} KB", None, size) for size in range(40, 40 + 45 * number, 45)),
        ("read-only", At(4, lambda: _read_only(disk)), 4000),
        ("parent renamed", At(4, lambda: (disk / "inner").rename(disk / "renamed")), 4000),
        ("parent removed", At(4, lambda: shutil.rmtree(disk / "inner")), 4000),
    ]
    for name, callback, size in kinds:
        _mount(disk, f"size={size}k")
        ended = forked(partial(_train, on_disk, callback), log)
        first = "done" if ended.status == 0 else "one sentence" if ended.status == REFUSED and ended.is_told else "BAD"
        if name == "read-only":
            subprocess.run(["umount", str(disk)], check=True)
        _mount(disk, "remount,size=9000k")
        if (disk / "renamed").exists():
            shutil.rmtree(disk / "inner", ignore_errors=True)
            (disk / "renamed").rename(disk / "inner")
        said, ended = ended.said, forked(lambda: _train(on_disk, None), log)
        second = "exact" if ended.status == 0 and _weights(on_disk.folder) == whole else "BAD"
        print(f"{name}: {first}, then {second}: {said.strip()[-160:]!r}", flush=True)
        bad += "BAD" in (first, second) or (callback is not None and first != "one sentence")
        subprocess.run(["umount", str(disk)], check=True)
    small = place / "small"
    small.mkdir()
    for size in (4, 12, 16):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(small)], check=True)
        os.environ["LOOPSCALE_CACHE"] = str(small)
        ended = forked(lambda: _train(replace(run, out=str(place / "new")), None), log)
        told = ended.status == REFUSED and ended.is_told
        print(f"cache of {size} KB: {'one sentence' if told else 'BAD'}: {ended.said.strip()[-160:]!r}", flush=True)
        bad += not told
        subprocess.run(["umount", str(small)], check=True)
    return bad


def _train(run: RunConfig, callback: TrainerCallback | None) -> int:
    return int(train(run, [callback] if callback else [], quiet=True) is None)


def _read_only(disk: Path) -> None:
    """Put the same files over themselves, to be read only: a lock that is held keeps a disk from being remounted."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
