"""Second processes in a folder: the second is refused with the first one named; a killed study leaves none behind."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import tiny_run
from benchmarks.trials.workers import left_alive, workers
from loopscale.study.reproduce import reproduce
from loopscale.train import RunConfig, train


class Slow(TrainerCallback):
    """Says that it trains, and takes its time."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.mark.touch()
        time.sleep(1.5)


class SlowExecutor:
    """Executes nothing, slowly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def execute(self, jobs: Any, tick: Any) -> None:
        self.mark.touch()
        time.sleep(6)


WAYS = ("plain", "lock file removed", "owner removed", "stale owner", "study")


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return so many second processes, each in another state of the lock, and a quarter as many killed studies."""
    draw, number = random.Random(seed), number or len(WAYS)
    moments = [draw.uniform(0, 5) for _ in range(max(1, number // 4))]
    ways = [WAYS[i % len(WAYS)] for i in range(number)]
    return [
        *(Case(f"second process: {way}", partial(_second, place / "second", way)) for way in ways),
        *(Case("study killed", partial(_orphans, place / "orphans", moment)) for moment in moments),
    ]


def _second(place: Path, way: str) -> Record:
    """Start a first process, then a second in the same folder, which is to be refused with the first one named."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    run, mark, log = tiny_run(place), place / "mark", place / "said.txt"
    study = place / "study" if way == "study" else None
    held = run.folder / "checkpoints"
    if way == "stale owner":
        held.mkdir(parents=True)
        (held / ".owner.json").write_text(json.dumps({"pid": 1, "began": 1.0}))
    first = os.fork()
    if first == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            _work(run, study, [Slow(mark)], SlowExecutor(mark))
        finally:
            os._exit(0)
    while not mark.exists():
        time.sleep(0.02)
    if way == "lock file removed":
        (held / ".lock").unlink()
    if way == "owner removed":
        (held / ".owner.json").unlink()
    ended = forked(partial(_work, run, study, [], SlowExecutor(mark)), log)
    is_named = f"process {first}" in ended.said or way == "owner removed"
    kind = "refused" if ended.status == REFUSED and is_named and ended.is_told else "NOT REFUSED"
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    return {"kind": kind, "bad": kind.isupper(), "said": ended.said.strip()[-400:]}


def _work(run: RunConfig, study: Path | None, callbacks: list[TrainerCallback], executor: SlowExecutor) -> int:
    """Train a run, or reproduce a study with an executor that trains nothing; return the status of a command."""
    if study is None:
        return int(train(run, callbacks, quiet=True) is None)
    reproduce(replace(run, out=str(study)), study, ["terminal-raw"], executor=executor)
    return 0


def _orphans(place: Path, moment: float) -> Record:
    """Kill a study with SIGKILL some seconds after it trains; no process of its may be left alive."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    run = tiny_run(place)
    words = [f"--model.{key}={value}" for key, value in run.model.items() if key != "dropout"]
    words += [f"--corpus={run.data.corpus}", "--data.sequence_length=16", "--train.max_steps=100000"]
    words += ["--train.log_every=1", f"--out={place / 'study'}", "--conditions", "terminal-raw", "per_loop-raw"]
    command = [sys.executable, "-m", "loopscale", "reproduce", *words, "--processes=2"]
    study = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(place.glob("study/*/*/progress.json")) and study.poll() is None:
        time.sleep(0.1)
    time.sleep(moment)
    started = list(workers(place))
    study.kill()
    study.wait()
    alive = left_alive(place)
    kind = "LEFT PROCESSES ALIVE" if alive else "left none" if started else "STARTED NONE"
    return {"kind": kind, "bad": kind.isupper(), "started": len(started), "alive": alive}
