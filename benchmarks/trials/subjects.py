"""Subjects of the trials: a tiny training, evaluation and study, and what each makes, without clocks."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, final

from rich.console import Console

from loopscale.cli.main import main as command
from loopscale.study import worker
from loopscale.study.executors import LocalExecutor
from loopscale.study.reproduce import reproduce
from loopscale.train import DataConfig, RunConfig, TrainConfig, train

CLOCKS = ("runtime", r"seconds?\b", "_per_second", "speed", "throughput", "latency", "time_saving", "frontier")
CLOCK = re.compile("|".join((*CLOCKS, "^id$", "^environment$", "^seal$", "^run$")))
MODEL = {
    "hidden_size": 16,
    "num_stack_layers": 2,
    "num_attention_heads": 2,
    "num_loops": 3,
    "max_position_embeddings": 48,
}
CONDITIONS = ["terminal-raw", "per_loop-rmsnorm"]
MEASURED = ["--windows=8", "--max_loops=4", "--speed_batch_sizes=1", "--repeats=1", "--halting=entropy"]


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
class Subject:
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
    history = without_clocks(json.loads((folder / "training.json").read_text()))
    left = sorted(path.name for path in folder.iterdir())
    return {"weights": weights, "history": history, "files": left}


def _study_digest(place: Path) -> dict[str, Any]:
    results = without_clocks(json.loads((place / "study" / "results.json").read_text()))
    runs = {
        str(path.parent.relative_to(place)): _run_digest(path.parent)
        for path in place.glob("study/*/seed-*/result.json")
    }
    return {"metrics": results, **runs}


def _evaluate_digest(place: Path) -> dict[str, Any]:
    rules = {path.name: path.read_text() for path in sorted((place / "save_rules").iterdir())}
    return {"metrics": without_clocks(json.loads((place / "json").read_text())), "rules": rules}


def _reproduce_in_processes(place: Path) -> None:
    base = replace(tiny_run(place, max_steps=12, save_every=2), model=MODEL)
    executor = LocalExecutor(len(CONDITIONS))
    reproduce(base, place / "study", CONDITIONS, (1,), executor=executor, console=Console(file=StringIO()))


SUBJECTS = (
    Subject("train", _train, lambda place: _run_digest(place / "run")),
    Subject("reproduce", _reproduce, _study_digest),
    Subject("evaluate", _evaluate, _evaluate_digest),
)
WORKERS = Subject("reproduce in processes", _reproduce_in_processes, _study_digest)


def without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_clocks(entry) for key, entry in value.items() if not CLOCK.search(key)}
    return [without_clocks(entry) for entry in value] if isinstance(value, list) else value
