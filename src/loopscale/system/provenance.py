"""Provenance of a model: the text it was trained on, and how that became windows of tokens.

A measurement on another text, another column or other windows than the model was trained on answers another question;
so these settings are every command's defaults.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscale.errors import InputError

RUN_FILE = "run.json"
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


def provenance(name: str) -> Provenance | None:
    """Return what run.json says beside a model, or above one of the run's checkpoints; None where there is none.

    Raises `InputError` for a run.json that cannot be read.
    """
    path = run_file(Path(name))
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
            return None  # a run.json of something else
        return _read(path.parent, document)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' does not say how this model was trained ({type(error).__name__}: {error}): mend it, or move it "
            "away to measure with --corpus and --sequence_length of your own."
        ) from error


def run_file(folder: Path) -> Path | None:
    """Return the run.json that belongs to a folder of weights."""
    try:
        here = folder.resolve()
        places = [here, *(here.parents[:2] if here.name.startswith(CHECKPOINT) else ())]
        return next((place / RUN_FILE for place in places if (place / RUN_FILE).is_file()), None)
    except OSError:  # no path at all
        return None


def _read(folder: Path, document: dict[str, Any]) -> Provenance:
    data = document["config"]["data"]
    length = data["sequence_length"]
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"sequence_length {length!r}")
    return Provenance(
        folder,
        str(data["corpus"]),
        str(data.get("tokenizer", "bytes")),
        length,
        data.get("stride"),
        str(data.get("fit_on", "train")),
        data.get("text_field"),
        (document.get("corpus") or {}).get("sha256"),
    )
