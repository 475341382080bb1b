"""A run's folder: whose it is, what lies in it, and that one process at a time trains there."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers.trainer_utils import get_last_checkpoint

from loopscale.data import Data
from loopscale.environment import environment
from loopscale.errors import InputError
from loopscale.storage import check_writable, write_json
from loopscale.train.config import RunConfig

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
DONE_FILE = "training.json"
SECONDS_FILE = "seconds.json"  # of the parts of a run before it was stopped
LOCK_FILE = ".lock"  # among the checkpoints, which go when the run is done
# what may differ between the start and the resumption of a run
FREE_KEYS = ("log_every", "save_every", "evaluate_every", "workers", "report_to")


def check_folder(config: RunConfig) -> bool:
    """Return whether the folder already holds this run, finished or not.

    Raises `InputError` where it holds something else.
    """
    path = config.folder / RUN_FILE
    check_writable("--out", config.folder)
    if path.exists() and not started(config.folder):
        return False
    if not path.exists():
        if config.folder.is_dir() and any(
            p.name != CHECKPOINTS or started(config.folder) for p in config.folder.iterdir()
        ):
            raise InputError(f"{config.folder} is not empty and holds no loopscale run: choose another --out.")
        return False
    if differing := differences(read_config(config.folder).to_dict(), config.to_dict()):
        raise InputError(
            f"{config.folder} belongs to another configuration ({', '.join(differing)} differ): choose another --out, "
            "or remove the folder to train anew."
        )
    return True


def check_corpus(folder: Path, data: Data) -> None:
    """Raise `InputError` if what the folder holds was trained on another text than `data`."""
    corpus = _facts(folder).get("corpus") if started(folder) else None
    if corpus is not None and corpus["sha256"] != data.corpus.sha256:
        raise InputError(
            f"{folder} was trained on another text: corpus {data.corpus.name} has changed since. Bring the text back, "
            "choose another --out, or remove the folder to train anew."
        )


def check_processes(folder: Path, processes: int) -> None:
    """Raise `InputError` if the folder's run began with another number of processes: its steps would be others."""
    before = _facts(folder).get("processes", processes) if started(folder) else processes
    if before != processes and not (folder / DONE_FILE).exists():
        raise InputError(
            f"{folder} was begun with {before} processes, and these are {processes}, whose steps would take another "
            f"number of windows: go on with {before}, or choose another --out."
        )


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes. Raises `InputError` if another one trains there."""
    path = folder / CHECKPOINTS / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process is training in {folder}: wait for it or stop it, or choose another --out."
        ) from None
    except NotImplementedError:  # a file system without locks: nothing to hold
        pass
    try:
        yield
    finally:
        lock.release()


def started(folder: Path) -> bool:
    """Return whether a folder holds anything of a run that took time: a checkpoint or a finished model."""
    return (folder / DONE_FILE).exists() or last_checkpoint(folder) is not None


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint to resume from, if any."""
    checkpoints = folder / CHECKPOINTS
    return get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None


def write_config(config: RunConfig, data: Data | None = None, processes: int = 1) -> None:
    """Write the run's configuration into its folder, with its corpus, and the environment it was started in."""
    facts = _facts(config.folder) if started(config.folder) else {}
    if not facts and data is not None:
        facts = {
            "corpus": {"name": data.corpus.name, "sha256": data.corpus.sha256},
            "environment": environment(),
            "processes": processes,
        }
    write_json(config.folder / RUN_FILE, {"config": config.to_dict(), **facts})


def read_config(folder: Path) -> RunConfig:
    """Return the configuration in a run's folder; raises `InputError` where there is none."""
    return RunConfig.from_dict(_read(folder)["config"])


def _facts(folder: Path) -> dict[str, Any]:
    """Return what a run's folder says beside its configuration."""
    return {key: value for key, value in _read(folder).items() if key != "config"}


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {**document, "config": document["config"]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not readable as a run: remove {folder} or choose another --out.") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names that differ, apart from those that may."""
    names = []
    for key in sorted({*before, *now} - {*FREE_KEYS, "out"}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def seconds_before(folder: Path) -> float:
    """Return the training time up to the checkpoint."""
    path = folder / CHECKPOINTS / SECONDS_FILE
    try:
        return float(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # a run without a checkpoint; a clock is not worth a run
        return 0.0


def read_record(folder: Path) -> dict[str, Any]:
    """Return the steps, seconds and log lines of a finished run. Raises `InputError` where they cannot be read."""
    path = folder / DONE_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {key: record[key] for key in ("steps", "seconds", "history")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove {folder} to train anew, or bring the file back.") from error
