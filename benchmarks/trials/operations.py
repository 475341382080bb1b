"""File operations of a process, counted as they happen: the points at which a kill or a snapshot is aimed.

Python announces each operation before it is done (its audit events), so that nothing of the library is patched, and
every write, rename and removal below a folder is a point: cache, checkpoint, rotation, final save, records, report.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

WRITES = os.O_WRONLY | os.O_RDWR
PATHS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "shutil.rmtree": 0}
# what an operation belongs to, by the place it is done at; the first that fits
KINDS = {
    "lock": r"\.lock$|\.owner\.json|/\.owner|\.study",
    "cache": r"/cache/",
    "checkpoint written": r"checkpoints/\.staging",
    "checkpoint moved": r"rename .*checkpoints/checkpoint-\d+$|rmdir .*\.staging$",
    "rotation": r"checkpoints/checkpoint-|remove|rmdir|rmtree",
    "seconds.json": r"seconds\.json",
    "training.json": r"training\.json",
    "run.json": r"run\.json|study\.json",
    "progress": r"progress\.json",
    "result": r"/\.?result\.json",
    "report": r"results\.json|tables|figures|report\.html|\.json$|\.png$",
    "final save": r"/run/|seed-",
}


def kind_of(operation: str) -> str:
    """Return what an operation (`event path`) belongs to."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation)), "other")


@final
class Operations:
    """Counts operations below `root` from `start` on, calling `at` before each with its number and its words."""

    def __init__(self, root: Path, at: Callable[[int, str], None]) -> None:
        self.root, self.at = f"{root}/", at
        self.count, self.on = 0, False

    def start(self) -> None:
        """Listen, until `on` is False: Python's audit hooks cannot be removed."""
        self.on = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on or event not in PATHS:
            return
        path = args[PATHS[event]]
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(self.root):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
            return
        self.on = False  # what `at` does itself is no operation
        try:
            self.at(self.count, f"{event.removeprefix('os.')} {os.fsdecode(path)}")
        finally:
            self.on = True
        self.count += 1
