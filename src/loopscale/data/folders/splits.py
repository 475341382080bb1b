"""Splits by name: which files of a folder are to train on, to validate on, or to test on.

Data sets say so in folders (`train/`, `Validation/`) and in file names (`wiki.train.tokens`, `my_dev.txt`,
`train-00000-of-00002.parquet`). Where two readings are possible, the one wins that never trains on held-out text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, final

from loopscale.data.folders.traversal import Walk, listed
from loopscale.data.readers import CODE_ENDINGS, PAGE_ENDINGS, endings
from loopscale.errors import InputError

Role = Literal["test", "valid", "train"]

# in the order of caution: a name with two of these words is of the first role
WORDS: dict[Role, frozenset[str]] = {
    "test": frozenset({"test", "testing", "tst"}),
    "valid": frozenset({"valid", "validation", "val", "dev", "eval", "evaluation", "heldout", "holdout"}),
    "train": frozenset({"train", "training", "trn"}),
}
FILLERS = frozenset({"of", "part", "shard", "chunk", "file", "set", "split", "data", "text", "corpus", "full", "all"})
TOPICS = frozenset({"training", "testing", "evaluation", "eval"})  # what a page is about, rather than a split
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@final
@dataclass
class Split:
    """The files of a folder by what they are for; `named` says that names told it."""

    train: list[Path] = field(default_factory=list)
    valid: list[Path] = field(default_factory=list)
    named: bool = False


def split_by_name(found: Walk, files: Iterable[Path]) -> Split:
    """Return which files are to train and to validate on; what is for neither is left out of `found`, with why.

    Names that say `valid` or `test` are always heeded, but among pages of documentation: there `train` must be named
    too. Where nothing is held out by its name, everything is to train on.

    Raises:
        InputError: names leave nothing to train on.
    """
    files = list(files)
    pages = [file for file in files if _is_page(file)]
    roles = _heeded(found, [file for file in files if not _is_page(file)], alone=True)
    roles |= _heeded(found, pages, alone=False)
    held = [found.name(file) for file in files if roles[file] in ("valid", "test")]
    if not held:
        return Split(train=files)
    split = Split(named=True)
    train = "train" if "train" in roles.values() else None
    for file in files:
        if roles[file] == "valid":
            split.valid.append(file)
        elif roles[file] == train:
            split.train.append(file)
        else:
            test = roles[file] == "test"
            found.leave_out(file, "a test split" if test else "of no split, where others name theirs")
    if not split.train:
        raise InputError(
            f"folder '{found.folder}' holds nothing to train on: by their names {listed(held)} are for validation or "
            "test; name the others 'train', or give one file as the corpus."
        )
    return split


def role_of(path: PurePosixPath) -> Role | None:
    """Return the role that a relative path names, in one of its folders or in its own name.

    A part that says nothing else (`train-00000-of-00002.parquet`) counts before one that does (`my_dev.txt`).
    """
    stem, ending, _ = endings(path.name)
    if ending in CODE_ENDINGS:  # `train.py` and `tests/` are a program's
        return None
    page = ending in PAGE_ENDINGS
    parts = [*map(_words, path.parts[:-1]), [word for word in _words(stem) if not (page and word in TOPICS)]]
    for alone in (True,) if page else (True, False):
        for role, words in WORDS.items():
            if any(_says(part, words, alone) for part in parts):
                return role
    return None


def _heeded(found: Walk, files: list[Path], alone: bool) -> dict[Path, Role | None]:
    """Return the files' roles; none of them counts where held-out text must not stand `alone` and does."""
    roles = {file: role_of(PurePosixPath(found.name(file))) for file in files}
    return roles if alone or "train" in roles.values() else dict.fromkeys(files)


def _is_page(file: Path) -> bool:
    return endings(file.name)[1] in PAGE_ENDINGS


def _says(part: list[str], words: frozenset[str], alone: bool) -> bool:
    said = [word for word in part if word not in FILLERS]
    return bool(said) and set(said) <= words if alone else any(word in words for word in said)


def _words(name: str) -> list[str]:
    """Return a name's words in lower case: `TrainData-00001` is train, data."""
    words = re.findall(r"[a-z]+", _CAMEL.sub(" ", name).lower())
    return " ".join(words).replace("held out", "heldout").replace("hold out", "holdout").split()
