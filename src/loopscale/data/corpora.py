"""Corpora: named texts and local files, each as documents of a train and a valid split."""

import os
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopscale.data import hub, readers
from loopscale.data.cache import digest
from loopscale.errors import InputError, unknown

Split = Literal["train", "valid"]
Splits = tuple[Sequence[str], Sequence[str]]  # documents of train and of valid

VALID_FRACTION = 0.05
STDLIB_SKIPPED = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True)
class CorpusId:
    """What a result records of its corpus: the name and the hex SHA-256 of the content of both splits."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Corpus:
    """Text in two splits, as documents; `id` names the content."""

    id: CorpusId
    train: tuple[str, ...]
    valid: tuple[str, ...]

    def documents(self, split: Split) -> tuple[str, ...]:
        """Return the documents of a split by its name."""
        return self.train if split == "train" else self.valid

    @classmethod
    def of(cls, name: str, train: Sequence[str], valid: Sequence[str]) -> "Corpus":
        """Make a corpus of documents; raises InputError if a split holds no text."""
        for split, documents in (("train", train), ("valid", valid)):
            if not any(document.strip() for document in documents):
                raise InputError(f"the {split} split of corpus '{name}' is empty: give it some text.")
        return cls(CorpusId(name, digest(digest(*train), digest(*valid))), tuple(train), tuple(valid))


def load_corpus(name_or_path: str, *, text_field: str = "text", valid_fraction: float = VALID_FRACTION) -> Corpus:
    """Return a corpus by name or from local files.

    Names: `stdlib` is the source text of the running Python's standard library, without tests, third-party
    packages and the files that the build of Python generates; `wikitext-2` and `wikitext-103` are the *raw*
    versions (`wikitext-2-raw-v1`, `wikitext-103-raw-v1`) of Salesforce/wikitext on the hub.

    Paths: a text, JSONL or parquet file, or a folder of them. A folder with train and valid files
    (`train.txt` and `valid.txt`, `wiki.train.tokens` and `wiki.valid.tokens`) is split so. Elsewhere
    `valid_fraction` is held out: at 5%, every 20th document of a folder and of `stdlib`, and the last
    documents or lines of a file.

    Args:
        name_or_path: a name above or a path; a name wins over a file called the same (write `./stdlib`).
        text_field: the field of JSONL rows, the column of parquet files, that holds the text.
        valid_fraction: share of the text held out, above 0 and at most 0.5.

    Raises:
        InputError: unknown name, missing or unreadable file, no text, no network for a hub corpus.
    """
    if not 0 < valid_fraction <= 0.5:
        raise InputError(f"valid_fraction must be above 0 and at most 0.5, not {valid_fraction}.")
    if name_or_path in CORPORA:
        return Corpus.of(name_or_path, *CORPORA[name_or_path](name_or_path, valid_fraction))
    path = readers.existing(name_or_path)
    if path is None:
        raise _not_there(name_or_path)
    if path.is_dir():
        splits = _folder(path, text_field, valid_fraction)
    else:
        splits = _hold_out_end(readers.read_documents(path, text_field), valid_fraction)
    return Corpus.of(path.resolve().name, *splits)


def _stdlib(_: str, valid_fraction: float) -> Splits:
    root = Path(sysconfig.get_path("stdlib"))
    texts = []
    for file in readers.walk(root, frozenset({".py"}), STDLIB_SKIPPED):
        # `_sysconfigdata*` and `config-*/` are written when Python is built and tell of that machine
        if file.name.startswith("_sysconfigdata") or file.parent.name.startswith("config-"):
            continue
        try:
            texts.append(readers.decode(file))
        except InputError:  # a few sources are in other encodings on purpose
            continue
    return _hold_out_spread([text for text in texts if text], valid_fraction)


def _wikitext(name: str, _: float) -> Splits:
    return hub.wikitext(name)


CORPORA: dict[str, Callable[[str, float], Splits]] = {
    "stdlib": _stdlib,
    "wikitext-2": _wikitext,
    "wikitext-103": _wikitext,
}


def _folder(folder: Path, text_field: str, valid_fraction: float) -> Splits:
    def read(files: list[Path]) -> list[str]:
        return [document for file in files for document in readers.read_documents(file, text_field)]

    if splits := readers.split_files(folder):
        return read(splits["train"]), read(splits["valid"])
    files = readers.walk(folder, readers.SUFFIXES)
    if not files:
        kinds = " ".join(sorted(readers.SUFFIXES))
        raise InputError(f"folder '{folder}' holds no text files; these endings are read: {kinds}.")
    return _hold_out_spread(read(files), valid_fraction)


def _hold_out_spread(documents: Sequence[str], fraction: float) -> Splits:
    """Hold out every n-th document, n = 1 / fraction; the end of the text where there are fewer than n."""
    n = round(1 / fraction)
    if len(documents) < n:
        return _hold_out_end(documents, fraction)
    return [text for i, text in enumerate(documents, 1) if i % n], list(documents[n - 1 :: n])


def _hold_out_end(documents: Sequence[str], fraction: float) -> Splits:
    """Hold out the last documents; where they are too few for that, the last lines of their joined text."""
    if (held := round(len(documents) * fraction)) >= 1:
        return documents[:-held], documents[-held:]
    text = "\n".join(documents)
    near = int(len(text) * (1 - fraction))
    line = text.find("\n", near) + 1
    cut = line if 0 < line < len(text) else near
    return [text[:cut]], [text[cut:]]


def _not_there(name_or_path: str) -> InputError:
    if os.sep in name_or_path or Path(name_or_path).suffix:
        return InputError(
            f"no such file or folder: '{name_or_path}' (a corpus is a path or one of {', '.join(CORPORA)})."
        )
    return InputError(f"{unknown('corpus', name_or_path, CORPORA)} A path of a text file or folder does too.")
