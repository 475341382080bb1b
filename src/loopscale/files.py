"""Results as JSON: plain values, in files that are written whole or not at all, where one can write."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from loopscale.errors import InputError


def plain(value: Any) -> Any:
    """Return a value as JSON has it: objects for dataclasses, lists for tuples, None for numbers that are not finite.

    What a dataclass holds in a field `extra` stands beside its fields.
    """
    if is_dataclass(value):
        known = {f.name: getattr(value, f.name) for f in fields(value)}
        extra = known.pop("extra", {})
        return plain({**known, **extra})
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; a killed process leaves the file that was there."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with staging.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def check_writable(option: str, folder: Path) -> None:
    """Raise `InputError`, naming the option, where no such folder can be made or written in. Makes nothing."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        what = "cannot be written in" if nearest.is_dir() else "is a file"
        raise InputError(f"{option} {folder}: {nearest} {what}, choose another folder.")
