"""Folder of a run: its record, and the lock against a second process."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from loopscale.storage import REST, parse_json, read_json, write_json
from loopscale.system import lock
from loopscale.system.environment import environment
from loopscale.train.checkpoints import CHECKPOINTS, last_checkpoint
from loopscale.train.config import RunConfig

RUN_FILE = "run.json"
DONE_FILE = "training.json"
SECONDS_FILE = "seconds.json"  # of the parts of a run before it was stopped


@final
@dataclass(frozen=True)
class RunRecord:
    """What run.json holds: the configuration, and the facts of the run's beginning.

    A run that has not begun yet, for instance one that a study has planned, has no facts.
    """

    config: Mapping[str, Any]
    corpus: Mapping[str, str] | None = None  # name and sha256
    tokenizer: str | None = None  # what decides its ids, as a hash
    precision: str | None = None  # that it computes in
    init_from: Mapping[str, str] | None = None  # path and sha256
    processes: int | None = None
    environment: Mapping[str, Any] | None = None
    id: str | None = None
    rest: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def run(self) -> RunConfig:
        """The configuration."""
        return RunConfig.from_dict(self.config)


@final
@dataclass(frozen=True)
class Divergence:
    """Where a run diverged: the step, what was not finite, and the layer and loop of the first such value if known."""

    step: int
    what: str
    where: str | None = None


@final
@dataclass(frozen=True)
class TrainingRecord:
    """What training.json holds: what a run that is over took, its log lines, and where it diverged if it did."""

    steps: int
    seconds: float
    history: list[dict[str, Any]]
    diverged: Divergence | None = None
    rest: Mapping[str, Any] = field(default_factory=dict, metadata=REST)


def started(folder: Path) -> bool:
    """Return whether a folder holds anything of a run that took time: a checkpoint or a finished model."""
    return (folder / DONE_FILE).exists() or last_checkpoint(folder) is not None


def finished(folder: Path) -> bool:
    """Return whether the run of a folder is over."""
    return (folder / DONE_FILE).exists()


def write_config(config: RunConfig, **facts: Any) -> RunRecord:
    """Write the run's configuration into its folder, beside the facts of its beginning; return the record.

    `facts` are those of a run that begins here and now: one that has begun keeps its own.
    """
    begun = read_record_of_run(config.folder) if started(config.folder) else None
    if begun is not None and begun.corpus is not None:
        record = replace(begun, config=config.to_dict(), processes=facts.get("processes", begun.processes))
    elif facts:
        record = RunRecord(config.to_dict(), **facts, environment=environment(), id=uuid4().hex)
    else:
        record = RunRecord(config.to_dict())
    write_json(config.folder / RUN_FILE, {k: v for k, v in vars(record).items() if v is not None and k != "rest"})
    return record


def read_run(folder: Path) -> RunConfig:
    """Return the configuration in a run's folder. Raises `InputError` where there is none."""
    return read_record_of_run(folder).run


def read_record_of_run(folder: Path) -> RunRecord:
    """Return what a folder's run.json holds. Raises `InputError` where it cannot be read as a run."""
    return read_json(folder / RUN_FILE, RunRecord, f"remove {folder} or choose another --out")


def read_record(folder: Path) -> TrainingRecord:
    """Return what a finished run took, and its log lines. Raises `InputError` where they cannot be read."""
    return read_json(folder / DONE_FILE, TrainingRecord, f"remove {folder} to train anew, or bring the file back")


def seconds_before(folder: Path) -> float:
    """Return the training time up to the checkpoint."""
    path = folder / CHECKPOINTS / SECONDS_FILE
    try:
        return float(parse_json(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, ValueError, TypeError):  # a run without a checkpoint; a clock is not worth a run
        return 0.0


def only_one(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder against other processes. Raises `InputError`, naming the other, if one trains there."""
    return lock.only_one(
        folder / CHECKPOINTS, f"training in {folder}", "wait for it or stop it, or choose another --out"
    )
