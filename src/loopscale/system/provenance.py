"""Provenance of a model: the text it was trained on, and how that became windows of tokens.

A measurement on another text, another column or other windows than the model was trained on answers another question;
so these settings are every command's defaults.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscale.errors import InputError
from loopscale.storage import from_json, read_json, resolved

RUN_FILE = "run.json"
REMEDY = "mend it, or move it away to measure with --corpus and --sequence_length of your own"
CHECKPOINT = "checkpoint-"  # begins the name of a folder that a run keeps among its checkpoints


@dataclass(frozen=True)
class Provenance:
    """The settings of the run that wrote a model. `sha256` is of the text's content, None where it is not recorded."""

    folder: Path
    corpus: str
    tokenizer: str
    sequence_length: int
    stride: int | None
    fit_on: str
    text_field: str | None
    sha256: str | None
    stream: bool = False


@dataclass(frozen=True)
class _Data:
    """What was read, of a run's configuration."""

    corpus: str
    sequence_length: int
    tokenizer: str = "bytes"
    stride: int | None = None
    fit_on: str = "train"
    text_field: str | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise InputError(f"sequence_length is {self.sequence_length}")


@dataclass(frozen=True)
class _Config:
    data: _Data


@dataclass(frozen=True)
class _Text:
    sha256: str | None = None


@dataclass(frozen=True)
class _Record:
    """What is read of a run.json."""

    config: _Config
    corpus: _Text | None = None


def provenance(name: str) -> Provenance | None:
    """Return what run.json says beside a model, or above one of the run's checkpoints; None where there is none.

    Raises `InputError` for a run.json that cannot be read.
    """
    path = run_file(Path(name))
    if path is None:
        return None
    document: Any = read_json(path, object, REMEDY)
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        return None  # a run.json of something else
    record = from_json(document, _Record, f"'{path}' does not say how this model was trained", REMEDY)
    data, corpus = record.config.data, record.corpus
    return Provenance(
        path.parent,
        data.corpus,
        data.tokenizer,
        data.sequence_length,
        data.stride,
        data.fit_on,
        data.text_field,
        None if corpus is None else corpus.sha256,
        data.stream,
    )


def run_file(folder: Path) -> Path | None:
    """Return the run.json that belongs to a folder of weights."""
    try:
        here = resolved(folder)
        places = [here, *(here.parents[:2] if here.name.startswith(CHECKPOINT) else ())]
        return next((place / RUN_FILE for place in places if (place / RUN_FILE).is_file()), None)
    except OSError:  # no path at all
        return None
