"""Damaged states of a stopped run and of a finished one: exact, gone on from the checkpoint before, or one sentence.

Every file of the folder, times every kind of damage. What is trained on is held against the weights of a run that
nobody damaged; a finished model must be refused by whatever loads it, or load with the same weights.
"""

import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.kills import tiny_run
from loopscale.load import load_model
from loopscale.train import train


class StopAt(TrainerCallback):
    """Ends a run by a signal in a step, as a scheduler does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), 15)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(max(1, path.stat().st_size))])


def _swap(path: Path, draw: random.Random) -> None:
    """Put the same file of another checkpoint here, or some other file of this folder."""
    others = [p for p in path.parent.parent.rglob(path.name) if p != path]
    others += [p for p in path.parent.iterdir() if p.is_file() and p != path]
    if others:
        path.write_bytes(draw.choice(others).read_bytes())


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: Mapping[str, Callable[[Path, random.Random], None]] = {
    "emptied": lambda path, draw: _write(path, b""),
    "cut": _cut,
    "flipped": _flip,
    "deleted": lambda path, draw: path.unlink(),
    "swapped": _swap,
    "foreign": lambda path, draw: _write(path, draw.randbytes(200)),
    "grown": lambda path, draw: _write(path, path.read_bytes() + b"\0" * 8),
    "a folder": _folder,
}


def main(number: int, seed: int, out: Path) -> int:
    """Damage so many states (0: all), print what came out; return how many were silent or ended in a traceback."""
    torch.set_num_threads(1)
    draw, log = random.Random(seed), out / "said.txt"
    place = out / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    run, stopped, finished = tiny_run(place), out / "stopped", out / "finished"
    for folder in (stopped, finished):
        shutil.rmtree(folder, ignore_errors=True)
    forked(lambda: int(train(run, [StopAt()], quiet=True) is not None), log)
    shutil.copytree(run.folder, stopped)
    assert forked(lambda: int(train(run, quiet=True) is None), log).status == 0, log.read_text()
    shutil.copytree(run.folder, finished)
    whole = _weights(finished)
    states = [
        (base, path.relative_to(base), how)
        for base in (stopped, finished)
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.name != ".lock"
        for how in DAMAGE
    ]
    states = draw.sample(states, number) if 0 < number < len(states) else states
    found, bad = Counter[str](), 0

    def resume() -> int | None:
        trained = train(run)
        if base == finished:
            load_model(run.out)
        return None if trained is not None else 1

    for base, name, how in states:
        shutil.rmtree(run.folder)
        shutil.copytree(base, run.folder)
        DAMAGE[how](run.folder / name, draw)
        ended = forked(resume, log, limit=300)
        if ended.status == 0:
            kind = "gone on from the checkpoint before" if "instead" in ended.said else "exact"
            kind = kind if _weights(run.folder) == whole else "SILENTLY ANOTHER"
        elif ended.status == REFUSED and ended.is_told:
            kind = "one sentence"
        else:
            kind = "TRACEBACK"
        found[f"{base.name}: {kind}"] += 1
        if kind.isupper():
            bad += 1
            print(f"{kind}: {base.name} {name} {how}: {ended.said[-400:]}", flush=True)
    print(f"{len(states)} states: {dict(sorted(found.items()))}")
    return bad


def _weights(folder: Path) -> str:
    path = folder / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
