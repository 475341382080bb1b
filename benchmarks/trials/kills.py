"""Kills at random and aimed points of training, evaluation and `reproduce`; what the same command then makes.

Each trajectory is killed once to three times, then left to end; weights, history and metrics are held bit by bit
against those of one that nobody killed. Children are forks of a process that has imported everything, so that a kill
costs a second.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, final

import torch
from rich.console import Console

from benchmarks.trials.forks import forked
from benchmarks.trials.operations import Operations, kind_of
from loopscale.cli.main import main as command
from loopscale.study import worker
from loopscale.study.reproduce import reproduce
from loopscale.train import DataConfig, RunConfig, TrainConfig, train

CLOCK = re.compile(r"runtime|seconds?\b|_per_second|speed|throughput|latency|time_saving|frontier|^id$|^environment$")
MODEL = {
    "hidden_size": 16,
    "num_stack_layers": 2,
    "num_attention_heads": 2,
    "num_loops": 3,
    "max_position_embeddings": 48,
}
CONDITIONS = ["terminal-raw", "per_loop-rmsnorm"]
MEASURED = ["--windows=8", "--max_loops=4", "--speed_batch_sizes=1", "--repeats=1", "--halting=entropy"]
MOST_KILLS = 3


def tiny_run(place: Path, **settings: Any) -> RunConfig:
    """Return a run of six steps on a text in `place`."""
    text = place / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"line {i}: {i * i % 97} loops of {i % 13} steps" for i in range(600)))
    usual: dict[str, Any] = {"max_steps": 6, "log_every": 1, "save_every": 2, "evaluate_every": 3, "monitor_every": 3}
    return RunConfig(
        model={**MODEL, "dropout": 0.1},
        data=DataConfig(corpus=str(text), sequence_length=16),
        train=TrainConfig(**{"batch_size": 4, "precision": "float32", **usual, **settings}),
        out=str(place / "run"),
    )


@final
class InProcess:
    """Executes a study's jobs in this process, so that a kill of it is one of its worker too."""

    def execute(self, jobs: Any, tick: Any) -> None:
        for job in jobs:
            if worker.main(job.folder):
                raise RuntimeError(job.name)
            tick()


@dataclass(frozen=True)
class Trial:
    """What is killed: it makes something in a folder. `digest` says what came out, without clocks."""

    name: str
    act: Callable[[Path], None]
    digest: Callable[[Path], Mapping[str, Any]]


def _train(place: Path) -> None:
    assert train(tiny_run(place, save_every=int(place.name[-1]) % 3 + 1), quiet=True) is not None


def _reproduce(place: Path) -> None:
    base = replace(tiny_run(place, max_steps=3, save_every=1), model=MODEL)
    reproduce(base, place / "study", CONDITIONS, (1,), executor=InProcess(), console=Console(file=StringIO()))


def _evaluate(place: Path) -> None:
    if not (place / "run" / "training.json").exists():
        _train(place)
    out = [f"--{name}={place / name}" for name in ("json", "figures", "save_rules")]
    with contextlib.redirect_stdout(StringIO()):
        assert command(["evaluate", str(place / "run"), *MEASURED, *out]) == 0


def _run_digest(folder: Path) -> dict[str, Any]:
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    history = _without_clocks(json.loads((folder / "training.json").read_text()))
    left = sorted(path.name for path in folder.iterdir())
    return {"weights": weights, "history": history, "files": left}


def _study_digest(place: Path) -> dict[str, Any]:
    results = _without_clocks(json.loads((place / "study" / "results.json").read_text()))
    runs = {
        str(path.parent.relative_to(place)): _run_digest(path.parent)
        for path in place.glob("study/*/seed-*/result.json")
    }
    return {"metrics": results, **runs}


def _evaluate_digest(place: Path) -> dict[str, Any]:
    rules = {path.name: path.read_text() for path in sorted((place / "save_rules").iterdir())}
    return {"metrics": _without_clocks(json.loads((place / "json").read_text())), "rules": rules}


TRIALS = (
    Trial("train", _train, lambda place: _run_digest(place / "run")),
    Trial("reproduce", _reproduce, _study_digest),
    Trial("evaluate", _evaluate, _evaluate_digest),
)


def main(kills: int, seed: int, out: Path) -> int:
    """Make so many kills, print where they fell and what came out; return the number that changed anything."""
    torch.set_num_threads(1)
    draw, fell, bad, done = random.Random(seed), Counter[str](), [], 0
    bases: dict[tuple[str, int], tuple[Mapping[str, Any], list[str], float]] = {}
    while done < kills:
        trial, variant = draw.choice(TRIALS), draw.randrange(3)
        if (trial.name, variant) not in bases:
            bases[trial.name, variant] = _base(trial, variant, out)
        expected, operations, seconds = bases[trial.name, variant]
        place = _fresh(out / f"trial-{variant}")
        for _ in range(min(draw.randint(1, MOST_KILLS), kills - done)):
            where = _kill(trial, place, operations, seconds, draw)
            if where is None:  # it was over before
                break
            done += 1
            fell[f"{trial.name}: {where}"] += 1
        status, said = _child(trial, place, out)
        found = trial.digest(place) if status == 0 else {"status": status, "said": said[-600:]}
        if found != expected:
            differing = list(_differences(expected, found))[:5]
            bad.append(f"{trial.name}-{variant} after {where}: {differing} {said[-600:]}")
            shutil.copytree(place, out / f"bad-{len(bad)}", dirs_exist_ok=True)
        if found != expected:
            print("DIFFERS", bad[-1])
        print(f"{done} of {kills} kills, {len(bad)} trajectories that differ", flush=True)
    for where, count in sorted(fell.items()):
        print(f"{count:4d}  {where}")
    return len(bad)


def _base(trial: Trial, variant: int, out: Path) -> tuple[Mapping[str, Any], list[str], float]:
    """Return what one that is not killed makes, its operations and its seconds."""
    place, began = _fresh(out / f"trial-{variant}"), time.monotonic()
    listed = out / "operations.txt"
    listed.write_text("")

    def note(number: int, operation: str) -> None:
        with listed.open("a") as file:
            file.write(f"{operation}\n")

    status, said = _child(trial, place, out, note)
    assert status == 0, said
    return trial.digest(place), listed.read_text().splitlines(), time.monotonic() - began


def _kill(trial: Trial, place: Path, operations: list[str], seconds: float, draw: random.Random) -> str | None:
    """Kill a child at a random time, or before an operation of a random kind; return where, None if it was over."""
    if draw.random() < 0.3:
        moment = draw.uniform(0.05, 0.95) * seconds
        status, _ = _child(trial, place, place.parent, after=moment)
        return "at a random moment" if status == -signal.SIGKILL else None
    kinds = sorted({kind_of(operation) for operation in operations})
    kind = draw.choice(kinds)
    left = draw.randrange(sum(kind_of(operation) == kind for operation in operations))
    fell: list[int] = []

    def at(number: int, operation: str) -> None:
        if kind_of(operation) == kind:
            if len(fell) == left:
                os.kill(os.getpid(), signal.SIGKILL)
            fell.append(number)

    status, said = _child(trial, place, place.parent, at)
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(f"{trial.name} after a kill: status {status}: {said}")
    return kind if status == -signal.SIGKILL else None


def _child(
    trial: Trial, place: Path, out: Path, at: Callable[[int, str], None] | None = None, after: float | None = None
) -> tuple[int, str]:
    """Run a trial in a fork; return its status (negative: the signal that ended it) and what it printed."""

    def act() -> None:
        os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
        if at is not None:
            Operations(place, at).start()
        trial.act(place)

    ended = forked(act, out / "said.txt", kill_after=after)
    return ended.status, ended.said


def _fresh(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(entry) for key, entry in value.items() if not CLOCK.search(key)}
    return [_without_clocks(entry) for entry in value] if isinstance(value, list) else value


def _differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, f"{where}/{i}")
    elif a != b:
        yield f"{where}: {str(a)[:80]} != {str(b)[:80]}"
