"""Traversal of a folder: one, with one set of rules, for whoever reads a folder.

What a system, an editor or a download leaves lying about is no text; a link is followed once, so that loops end and
nothing is read twice. Whatever is passed over is kept with its reason, for somebody will look for it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, final

from loopscale.errors import InputError
from loopscale.storage import kind_of

DEBRIS_FOLDERS = frozenset({"__macosx", "__pycache__", "$recycle.bin", "system volume information", "lost+found"})
DEBRIS_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
DEBRIS_ENDINGS = ("~", ".bak", ".swp", ".tmp", ".temp", ".lock", ".part", ".partial", ".incomplete", ".crdownload")
NAMES_AT_ONCE = 5  # in a sentence


class LeftOut(NamedTuple):
    """A file that is not read, by its path in the folder, and why."""

    name: str
    why: str


@final
@dataclass
class Walk:
    """What lies in a folder: files in the order of their paths, and what was passed over."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def name(self, file: Path) -> str:
        """Return a file's path in the folder, with slashes on every system."""
        return file.relative_to(self.folder).as_posix()

    def leave_out(self, file: Path, why: str) -> None:
        """Note that a file or folder is not read."""
        self.left_out.append(LeftOut(self.name(file), why))


def walk(folder: Path, skip: frozenset[str] = frozenset(), follow_links: bool = True) -> Walk:
    """Return the files under a folder, sorted by relative posix path; links to folders come after the folders.

    Args:
        folder: where to look; its own name is not judged.
        skip: names of folders that are not entered.
        follow_links: enter folders that are links; links to files are always followed.

    Raises:
        InputError: a folder may not be opened.
    """
    found = Walk(folder)
    seen = {_identity(folder)}
    links: list[Path] = []
    waiting = [folder]
    while waiting or links:
        if not waiting:  # real folders first: what they hold keeps its own name
            link = links.pop(0)
            if _identity(link) in seen:
                found.leave_out(link, "a link to a folder that is read already")
                continue
            seen.add(_identity(link))
            waiting.append(link)
        for entry in _entries(waiting.pop()):
            kind = kind_of(entry)
            if why := _debris(entry.name, kind):
                found.leave_out(entry, why)
            elif kind == "folder" and entry.name not in skip and (follow_links or not entry.is_symlink()):
                if entry.is_symlink():
                    links.append(entry)
                elif _identity(entry) not in seen:
                    seen.add(_identity(entry))
                    waiting.append(entry)
            elif kind == "file":
                found.files.append(entry)
            elif kind != "folder":
                found.leave_out(entry, f"{kind}, not a file")
    found.files.sort(key=found.name)
    found.left_out.sort()
    return found


def without_twins(found: Walk, files: Iterable[Path]) -> list[Path]:
    """Return the files, each once by what it is and not by its name; a real name is kept before a link's."""
    ordered = sorted(files, key=lambda file: (file.is_symlink(), found.name(file)))
    first: dict[tuple[int, int], Path] = {}
    kept = []
    for file in ordered:
        twin = first.setdefault(_identity(file), file)
        if twin is file:
            kept.append(file)
        else:
            found.leave_out(file, f"the same file as {found.name(twin)}")
    return sorted(kept, key=found.name)


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: the first few, and how many more."""
    more = len(names) - NAMES_AT_ONCE
    shown = ", ".join(printable(name) for name in names[:NAMES_AT_ONCE])
    return f"{shown} and {more:,} more" if more > 0 else shown


def printable(name: str) -> str:
    """Return a name of the file system as text that can be written everywhere."""
    return name.encode("utf-8", "backslashreplace").decode()


def _entries(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208, names alone are wanted
    except OSError as error:
        raise InputError(
            f"folder '{folder}' cannot be opened ({error.strerror or error}): change its permissions or move it away."
        ) from error
    return (folder / name for name in names)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _debris(name: str, kind: str) -> str | None:
    """Return why a name is passed over, None for one that is not."""
    low = name.lower()
    if name.startswith("."):
        return "hidden"
    if low in (DEBRIS_FOLDERS if kind == "folder" else DEBRIS_FILES):
        return "written by the system"
    if kind != "folder" and (low.endswith(DEBRIS_ENDINGS) or name.startswith(("~$", "#"))):
        return "a backup or unfinished file"
    return None
