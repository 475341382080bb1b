"""Second processes in a folder: the second is refused with the first one named; a killed study leaves none behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.kills import tiny_run
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


def main(number: int, seed: int, out: Path) -> int:
    """Start so many second processes, each in another state of the lock; return how many were let in or misnamed."""
    torch.set_num_threads(1)
    bad, place = 0, out / "place"
    ways = ("plain", "lock file removed", "owner removed", "stale owner", "study")
    for i in range(number):
        way = ways[i % len(ways)]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
        run, mark, log = tiny_run(place), place / "mark", out / "said.txt"
        study = place / "study"

        held = run.folder / "checkpoints"
        if way == "stale owner":
            held.mkdir(parents=True)
            (held / ".owner.json").write_text(json.dumps({"pid": 1, "began": 1.0}))
        first = os.fork()
        if first == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                _work(run, study if way == "study" else None, [Slow(mark)], SlowExecutor(mark))
            finally:
                os._exit(0)
        while not mark.exists():
            time.sleep(0.02)
        if way == "lock file removed":
            (held / ".lock").unlink()
        if way == "owner removed":
            (held / ".owner.json").unlink()
        ended = forked(partial(_work, run, study if way == "study" else None, [], SlowExecutor(mark)), log)
        named = f"process {first}" in ended.said or way == "owner removed"
        good = ended.status == REFUSED and named and ended.is_told
        bad += not good
        print(f"{way}: {'refused' if good else 'BAD'}: {ended.said.strip()[-150:]!r}", flush=True)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    return bad + _orphans(out, max(1, number // 4))


def _work(run: RunConfig, study: Path | None, callbacks: list[TrainerCallback], executor: SlowExecutor) -> int:
    """Train a run, or reproduce a study with an executor that trains nothing; return the status of a command."""
    if study is None:
        return int(train(run, callbacks, quiet=True) is None)
    reproduce(replace(run, out=str(study)), study, ["terminal-raw"], executor=executor)
    return 0


def _orphans(out: Path, number: int) -> int:
    """Kill so many studies with SIGKILL; return how many left a process of theirs alive."""
    left = 0
    for i in range(number):
        place = out / f"orphans-{i}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        run = tiny_run(place)
        words = [f"--model.{key}={value}" for key, value in run.model.items() if key != "dropout"]
        words += [f"--corpus={run.data.corpus}", "--data.sequence_length=16", "--train.max_steps=100000"]
        words += ["--train.log_every=1", f"--out={place / 'study'}", "--conditions", "terminal-raw", "per_loop-raw"]
        command = [sys.executable, "-m", "loopscale", "reproduce", *words]
        study = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(place.glob("study/*/*/progress.json")) and study.poll() is None:
            time.sleep(0.1)
        workers = psutil.Process(study.pid).children(recursive=True)
        study.kill()
        study.wait()
        alive = psutil.wait_procs(workers, timeout=60)[1]
        print(f"study killed: {len(workers)} processes of its own, {len(alive)} alive after", flush=True)
        left += bool(alive) or not workers
        for process in alive:
            process.kill()
    return left
