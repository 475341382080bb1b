"""Identity of a run: is this the one that the folder holds? Asked before it is gone on with.

What decides the weights is held against what the run began with, by content where it has a name or a path; the rest may
change on the way. More steps may be asked for as long as the schedule does not depend on their number.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loopscale.data import Data
from loopscale.data.tokenization import fingerprint
from loopscale.errors import InputError
from loopscale.storage import check_writable, is_staging, resolved
from loopscale.system.launcher import processes_started
from loopscale.train.checkpoints import CHECKPOINTS, checkpoints, step_of
from loopscale.train.config import MODEL_FIELDS, DataConfig, RunConfig, TrainConfig
from loopscale.train.run_folder import RUN_FILE, RunRecord, finished, read_record_of_run, started

# what may differ between the start and the resumption of a run
FREE_KEYS = ("log_every", "save_every", "evaluate_every", "workers", "report_to", "shard")
# names of things whose content is compared once it is read
NAMES = ("out", "preset", "corpus", "text_field", "init_from")
LENGTH = ("max_steps", "epochs")


def check_folder(config: RunConfig) -> bool:
    """Return whether the folder already holds this run, finished or not.

    Raises `InputError` where it holds something else, naming what differs with both values.
    """
    path = config.folder / RUN_FILE
    check_writable("--out", config.folder)
    if path.exists() and not started(config.folder):
        return False
    if not path.exists():
        if config.folder.is_dir() and any(
            (p.name != CHECKPOINTS or started(config.folder)) and not is_staging(p) for p in config.folder.iterdir()
        ):
            raise InputError(f"{config.folder} is not empty and holds no loopscale run: choose another --out.")
        return False
    record = read_record_of_run(config.folder)
    before = record.run
    _check_first_weights(before, config)
    _check_length(before, config)
    a, b = _decisive(before), _decisive(config)
    free = {f"train.{key}" for key in LENGTH}
    if record.tokenizer is not None:
        free |= {"data.tokenizer", "data.fit_on"}  # compared by what they make of the text
    if record.precision is not None:
        free.add("train.precision")
    if record.processes not in (None, processes_started()):
        free.add("train.batch_size")  # of one process; `check_machine` compares the whole step
    differing = [name for name in differences(a, b) if name not in free]
    if differing:
        said = ", ".join(f"{name}: {_value(a, name)} before, {_value(b, name)} now" for name in differing)
        raise InputError(
            f"{config.folder} belongs to another configuration ({said}): choose another --out, or remove the folder to "
            "train anew."
        )
    return True


def check_corpus(folder: Path, data: Data) -> None:
    """Raise `InputError` if what the folder holds was trained on another text or with other tokens than `data`."""
    record = read_record_of_run(folder) if started(folder) else None
    if record is None or record.corpus is None:
        return
    if record.corpus["sha256"] != data.corpus.sha256:
        raise InputError(
            f"{folder} was trained on another text: corpus {data.corpus.name} has changed since. Bring the text back, "
            "choose another --out, or remove the folder to train anew."
        )
    if record.tokenizer not in (None, fingerprint(data.tokenizer)):
        raise InputError(
            f"{folder} was trained with another tokenizer (data.tokenizer: {record.run.data.tokenizer} before): "
            "bring it back, choose another --out, or remove the folder to train anew."
        )


def check_machine(config: RunConfig, processes: int, precision: str) -> None:
    """Raise `InputError` if a step of the folder's run took another number of windows, or another precision."""
    folder = config.folder
    record = read_record_of_run(folder) if started(folder) and not finished(folder) else None
    if record is None:
        return
    if record.processes is not None:
        before, now = record.run.train.batch_size * record.processes, config.train.batch_size * processes
        if before != now:
            raise InputError(
                f"{folder} was begun with {record.processes} processes and {before} windows a step, and these are "
                f"{processes} with {now}: give --train.batch_size so that a step takes {before} again (it is per "
                "process), or choose another --out."
            )
    if record.precision not in (None, precision):
        raise InputError(
            f"{folder} was begun in {record.precision}, and this is {precision} (train.precision): give "
            f"--train.precision {record.precision}, or choose another --out."
        )


def check_start(record: RunRecord | None, init_from: str | None, sha256: str | None) -> None:
    """Raise `InputError` if a run that has begun started from other weights than those now given."""
    if record is None or record.corpus is None:
        return
    before = None if record.init_from is None else record.init_from["sha256"]
    if before != sha256:
        raise _other_start(None if record.init_from is None else record.init_from["path"], init_from)


def _check_first_weights(before: RunConfig, now: RunConfig) -> None:
    """Refuse weights to start from where the run had none, or the reverse, before what follows from them differs."""
    if now.init_from is not None and resolved(Path(now.init_from)) == resolved(now.folder):
        raise InputError(f"--init_from {now.init_from} is the folder of this run itself: choose another --out.")
    if (before.init_from is None) != (now.init_from is None):
        raise _other_start(before.init_from, now.init_from)


def _other_start(before: str | None, now: str | None) -> InputError:
    given = "--init_from is not given" if now is None else f"--init_from is {now}"
    return InputError(f"{given}, and this run began from {before or 'random weights'}: choose another --out.")


def _check_length(before: RunConfig, now: RunConfig) -> None:
    """Allow another number of steps where the steps so far would have been the same."""
    if _length(before) == _length(now):
        return
    name = "max_steps" if before.train.max_steps != now.train.max_steps else "epochs"
    said = f"train.{name} was {getattr(before.train, name)} and is {getattr(now.train, name)}"
    if finished(now.folder):
        raise InputError(
            f"{said}, and the run in {now.folder} is over: start from its weights with --init_from {now.folder} and "
            "another --out."
        )
    if now.train.schedule != "constant":
        raise InputError(
            f"{said}, and the schedule {now.train.schedule} depends on it, from the first step on: keep it, or choose "
            "another --out."
        )
    for needs, what in (
        (now.schedule.needs_length, "the growth of train.depth"),
        (now.supervision.changes, f"the supervision {now.supervision.name}"),
    ):
        if needs:
            raise InputError(f"{said}, and {what} depends on it: keep it, or choose another --out.")
    reached = max((step_of(path) for path in checkpoints(now.folder)), default=0)
    if now.train.max_steps is not None and now.train.max_steps < reached:
        raise InputError(f"{said}, and {now.folder} is at step {reached} already: give that many or more.")


def _length(config: RunConfig) -> tuple[str, float | int]:
    train = config.train
    return ("epochs", train.epochs) if train.max_steps is None else ("steps", train.max_steps)


def _decisive(config: RunConfig) -> dict[str, Any]:
    """Return the configuration with defaults filled in, so that a default and its value are the same."""
    document, model = config.to_dict(), config.model_config(None)
    document["model"] = {f.name: getattr(model, f.name) for f in MODEL_FIELDS if f.name != "vocab_size"}
    document["model"]["vocab_size"] = config.model.get("vocab_size")  # None: the tokenizer decides it
    document["data"]["stride"] = config.data.stride or config.data.sequence_length
    return document


def complete(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's document with the defaults of what it does not state: older versions state less."""
    defaults = {"data": asdict(DataConfig()), "train": asdict(TrainConfig())}
    defaults["model"] = {field.name: field.default for field in MODEL_FIELDS}
    del defaults["train"]["seed"]
    found = dict(document)
    for part, values in defaults.items():
        given = document.get(part, {})
        found[part] = {**values, **given} if isinstance(given, Mapping) else given
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names that differ, apart from those that may and those whose content is compared later."""
    names = []
    for key in sorted({*before, *now} - {*FREE_KEYS, *NAMES}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def _value(document: Mapping[str, Any], name: str) -> Any:
    for key in name.split("."):
        document = document.get(key, {})
    return document
