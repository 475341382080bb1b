"""Damaged states of a stopped run and of a finished one: exact, gone on from the checkpoint before, or one sentence.

Every file of the folder, times every kind of damage, and folders as a whole. What is trained on is held against the
weights of a run that nobody damaged; a finished model must be refused by whatever loads it, or load with the same
weights.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import tiny_run, without_clocks
from loopscale.load import load_model
from loopscale.train import RunConfig, train

Damage = Callable[[Path, random.Random], None]


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
        path.write_bytes(draw.choice(sorted(others)).read_bytes())


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _half(path: Path, draw: random.Random) -> None:
    """Remove every other line, which halves a manifest or a record."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[draw.randrange(2) :: 2]))


DAMAGE: Mapping[str, Damage] = {
    "emptied": lambda path, draw: _write(path, b""),
    "cut": _cut,
    "flipped": _flip,
    "deleted": lambda path, draw: path.unlink(),
    "swapped": _swap,
    "foreign": lambda path, draw: _write(path, draw.randbytes(200)),
    "grown": lambda path, draw: _write(path, path.read_bytes() + b"\0" * 8),
    "a folder": _folder,
    "a link to itself": lambda path, draw: _link(path, path.name),
    "a link to nothing": lambda path, draw: _link(path, "nothing"),
    "nobody's": lambda path, draw: path.chmod(0),
    "halved": _half,
}


def _of_another(path: Path, draw: random.Random, other: Path, base: Path) -> None:
    """Put what a run with another seed has at this place here, a file or a folder."""
    theirs = other / path.relative_to(base)
    if path.is_dir():
        shutil.rmtree(path)
    if theirs.is_dir():
        shutil.copytree(theirs, path, dirs_exist_ok=True)
    elif theirs.is_file():
        shutil.copy(theirs, path)


def _files_deleted(path: Path, draw: random.Random) -> None:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in draw.sample(files, len(files) // 2):
        file.unlink()


def _replace(path: Path, make: Callable[[], object]) -> None:
    shutil.rmtree(path)
    make()


FOLDER_DAMAGE: Mapping[str, Damage] = {
    "removed": lambda path, draw: shutil.rmtree(path),
    "half its files deleted": _files_deleted,
    "emptied": lambda path, draw: _replace(path, path.mkdir),
    "a file": lambda path, draw: _replace(path, path.touch),
    "a link to itself": lambda path, draw: _replace(path, partial(path.symlink_to, path.name)),
}


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return so many damaged states (0: all)."""
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    run, log = tiny_run(place), place / "said.txt"
    other = replace(run, train=replace(run.train, seed=run.train.seed + 1))
    bases = {}
    for name, config in (("another", other), ("run", run)):
        stopped, finished = place / f"{name} stopped", place / f"{name} finished"
        forked(partial(_trained, config, [StopAt()]), log)
        shutil.copytree(run.folder, stopped)
        assert forked(partial(_trained, config, []), log).status == 0, log.read_text()
        shutil.copytree(run.folder, finished)
        shutil.rmtree(run.folder)
        bases[name] = {"stopped": stopped, "finished": finished}
    whole = outcome(bases["run"]["finished"])
    states: list[tuple[Path, Path, str, Damage]] = []
    for kind, base in bases["run"].items():
        theirs: Damage = partial(_of_another, other=bases["another"][kind], base=run.folder)
        for path in sorted(base.rglob("*")):
            if path.name not in (".lock", ".owner.json"):
                every = {**(FOLDER_DAMAGE if path.is_dir() else DAMAGE), "another seed's": theirs}
                states += [(base, path.relative_to(base), how, act) for how, act in every.items()]
    draws = range(len(states))
    chosen = random.Random(seed).sample(draws, number) if 0 < number < len(states) else draws
    return [
        Case(
            f"{_kind(states[i][0])} {states[i][1]} {states[i][2]}",
            partial(_tried, run, *states[i][:2], states[i][3], random.Random(f"{seed} {i}"), whole, log),
        )
        for i in chosen
    ]


def _kind(base: Path) -> str:
    return base.name.split()[-1]


def _tried(
    run: RunConfig, base: Path, name: Path, damage: Damage, draw: random.Random, whole: tuple[str, ...], log: Path
) -> Record:
    """Damage one place of a copy and go on there."""
    if run.folder.is_symlink() or run.folder.exists():
        shutil.rmtree(run.folder)
    shutil.copytree(base, run.folder)
    damage(run.folder / name, draw)
    ended = forked(partial(_resumed, run, _kind(base) == "finished"), log, limit=300)
    if ended.status == 0:
        kind = "gone on from the checkpoint before" if "instead" in ended.said else "exact"
        kind = kind if outcome(run.folder) == whole else "SILENTLY ANOTHER"
    elif ended.status == REFUSED and ended.is_told:
        kind = "one sentence"
    else:
        kind = "TRACEBACK"
    return {"kind": f"{_kind(base)}: {kind}", "bad": kind.isupper(), "said": ended.said.strip()[-600:]}


def _trained(run: RunConfig, callbacks: list[TrainerCallback]) -> int:
    return int(train(run, callbacks, quiet=True) is None)


def _resumed(run: RunConfig, is_finished: bool) -> int | None:
    trained = train(run)
    if is_finished:
        load_model(run.out)
    return None if trained is not None else 1


def outcome(folder: Path) -> tuple[str, ...]:
    """Return what a finished run is: its weights, and its configuration and history without clocks."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    said = [json.loads((folder / name).read_text()) for name in ("config.json", "training.json")]
    return weights, *(json.dumps(without_clocks(document), sort_keys=True) for document in said)
