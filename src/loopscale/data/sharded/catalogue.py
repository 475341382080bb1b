"""Catalogue of a large folder: what a first reading found, for the runs and processes after it.

A text is known by its content, which takes a reading of all of it; while no file of the folder changes, as the file
system says, that reading need not be made again.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from loopscale.data.disk_cache import build_once, default_cache_dir, digest, remove
from loopscale.data.sharded.documents import Documents, Stamp
from loopscale.errors import InputError
from loopscale.storage import read_json, write_json

FORMAT = 1  # raise it when the same files should give another text
SETTLED = 2e9  # ns since the last change of a file, after which a further one cannot have the same time


@final
@dataclass(frozen=True)
class Survey:
    """What a reading found: the hash of the text, where its documents lie, and what there is to say."""

    sha256: str
    train: Documents
    valid: Documents
    notes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Catalogue:
    """A survey as it is kept; None where the text is held in memory after all: few documents, or small files."""

    survey: Survey | None


def surveyed(
    folder: Path,
    files: Sequence[Path],
    asked: Sequence[str | None],
    survey: Callable[[], Survey | None],
    cache: Path | None,
) -> Survey | None:
    """Return a survey of a folder, made once for all processes while its files stay as they are.

    Args:
        folder: what is read.
        files: everything in it.
        asked: further settings that the survey depends on.
        survey: makes it.
        cache: where it is kept; None is the user's cache folder.
    """
    stamps = {file: Stamp.of(file) for file in files}
    if any(time.time_ns() - stamp.recorded < SETTLED for stamp in stamps.values()):
        return survey()
    state = [os.fsencode(str(part)) for file, stamp in stamps.items() for part in (file.relative_to(folder), *stamp)]
    key = digest(FORMAT, os.fsencode(folder.absolute()), *asked, *state)
    path = (cache or default_cache_dir()) / f"corpus-{key[:32]}.json"

    def build(partial: Path) -> None:
        write_json(partial, Catalogue(survey()), sealed=True)

    try:
        return read_json(build_once(path, build), Catalogue).survey
    except InputError:
        if not path.exists():  # it is the text that is wrong
            raise
        remove(path)  # damaged from outside
        return read_json(build_once(path, build), Catalogue).survey
