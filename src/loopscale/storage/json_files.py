"""JSON documents on disk: `read_json` and `write_json`, each file whole or not at all.

One reader, so that a damaged or foreign file is one sentence wherever it is met.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar

from psutil import pid_exists

from loopscale.errors import InputError
from loopscale.storage.typed_json import REMEDY, from_json, parse_json, plain, to_json

T = TypeVar("T")
SEAL = "seal"  # the SHA-256 of a document's other values
STAGED = re.compile(r"\..+\.json\.\d+")


def write_json(path: Path, value: Any, sealed: bool = False) -> None:
    """Write a value as strict JSON; a killed process leaves the file that was there.

    An object that is `sealed` carries a hash of itself, so that a changed digit is told when it is read. Raises
    `InputError` where the place cannot be written or is full.
    """
    value = {**plain(value), SEAL: _seal(value)} if sealed else value
    content = (to_json(value) + "\n").encode("utf-8", "backslashreplace")  # half of a surrogate pair: JSON's own escape
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        with staging.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError as error:
        with suppress(OSError):
            staging.unlink()
        raise InputError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left of a JSON file: not every folder has somebody who sweeps it."""
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        with suppress(OSError):
            if is_staging(left) and is_of_the_dead(left):
                left.unlink()


def is_of_the_dead(path: Path) -> bool:
    """Return whether the process whose number ends a name runs no more on this machine."""
    try:
        return not pid_exists(int(path.suffix[1:]))
    except (ValueError, OverflowError):
        return False


def is_staging(path: Path) -> bool:
    """Return whether a file is what a killed process left of `write_json`."""
    return STAGED.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove what killed processes left of `write_json` in a folder where nobody else writes now."""
    for path in [path for path in folder.iterdir() if is_staging(path)] if folder.is_dir() else []:
        with suppress(OSError):
            path.unlink()


def read_json(path: Path, kind: type[T] | GenericAlias, remedy: str = REMEDY) -> T:
    """Return the value of a JSON file as a `kind`: a dataclass, a mapping, any type with annotations.

    Raises `InputError`: one sentence with the file, the place in it, what was expected there, and the remedy.
    """
    document = parse_json(_text(path, remedy), str(path), remedy)
    if isinstance(document, dict) and SEAL in document and document.pop(SEAL) != _seal(document):
        raise InputError(f"{path} is not as it was written: {remedy}, or remove its '{SEAL}' if the change is meant.")
    return from_json(document, kind, str(path), remedy)


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(document, None).encode("utf-8", "surrogatepass")).hexdigest()


def _text(path: Path, remedy: str) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'no plain file'}: {remedy}.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: {remedy}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {remedy}.") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{path} is not UTF-8 text (byte 0x{byte:02x} at {error.start}): {remedy}.") from error
