"""Corpora: named texts and local files, each as documents of a train and a valid split."""

import logging
import os
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from loopscale.data import hub
from loopscale.data.disk_cache import digest, digest_of
from loopscale.data.folders import printable, read_folder, walk
from loopscale.data.readers import Source, existing, read_file
from loopscale.data.sharded import Documents, Survey, surveyed, too_large
from loopscale.errors import InputError, unknown
from loopscale.storage import resolved

logger = logging.getLogger(__name__)

Split = Literal["train", "valid"]
Splits = tuple[Sequence[str], Sequence[str], list[str]]  # documents of train and of valid, and notes on them

VALID_FRACTION = 0.05
STDLIB_SKIPPED = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


@final
@dataclass(frozen=True)
class CorpusId:
    """What a result records of its corpus: the name and the hex SHA-256 of the content of both splits.

    The content alone is the identity: the same text under another path, or cut into other files, has the same hash.
    """

    name: str
    sha256: str


@final
@dataclass(frozen=True)
class Corpus:
    """Text in two splits, as documents; `id` names the content, `notes` say what was guessed and left out.

    The documents of a large folder are not in memory: they are read from its files whenever they are asked for.
    """

    id: CorpusId
    train: Sequence[str]
    valid: Sequence[str]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def documents(self, split: Split) -> Sequence[str]:
        """Return the documents of a split by its name."""
        return self.train if split == "train" else self.valid

    @classmethod
    def of(cls, name: str, train: Sequence[str], valid: Sequence[str], notes: Sequence[str] = ()) -> "Corpus":
        """Make a corpus of documents; raises InputError if a split holds no text, or something that is none."""
        for split, documents in (("train", train), ("valid", valid)):
            if not any(document.strip() for document in documents):
                raise InputError(f"the {split} split of corpus '{name}' is empty: give it some text.")
        try:
            sha256 = digest(digest_of(train), digest_of(valid))
        except UnicodeEncodeError as error:
            raise InputError(f"corpus '{name}' holds half a surrogate pair, which is not text: {error}.") from error
        return cls(CorpusId(name, sha256), _held(train), _held(valid), tuple(notes))


def load_corpus(
    name_or_path: str,
    text_field: str | None = None,
    valid_fraction: float = VALID_FRACTION,
    quiet: bool = False,
    cache_dir: Path | None = None,
) -> Corpus:
    """Return a corpus by name or from local files.

    Names: `stdlib` is the source text of the running Python's standard library, without tests, third-party
    packages and the files that the build of Python generates; `wikitext-2` and `wikitext-103` are the *raw*
    versions (`wikitext-2-raw-v1`, `wikitext-103-raw-v1`) of Salesforce/wikitext on the hub.

    Paths: a file of text, JSON, CSV, parquet or Arrow, compressed or not, or a folder of them. A folder whose names
    tell train and valid (and test) files apart is split so. Elsewhere `valid_fraction` is held out: at 5%, every 20th
    document of a folder and of `stdlib`, and the last documents or lines of a file. What was guessed, held out or left
    out stands in `notes` and is logged as a warning, a sentence each.

    Args:
        name_or_path: a name above or a path; a name wins over a file called the same (write `./stdlib`).
        text_field: the field or column of rows that holds the text; None is `text`, or else the only one whose name
            usually means it.
        valid_fraction: share of the text held out, above 0 and at most 0.5.
        quiet: log nothing.
        cache_dir: where is kept what a first reading of a large folder found; None is the user's cache folder.

    Raises:
        InputError: unknown name, missing or unreadable file, no text, no network for a hub corpus.
    """
    if not 0 < valid_fraction <= 0.5:
        raise InputError(f"valid_fraction must be above 0 and at most 0.5, not {valid_fraction}.")
    if name_or_path in CORPORA:
        corpus = Corpus.of(name_or_path, *CORPORA[name_or_path](name_or_path, valid_fraction))
    elif path := existing(name_or_path):
        corpus = _local(path, text_field, valid_fraction, cache_dir)
    else:
        raise _not_there(name_or_path)
    if not quiet:
        tell(corpus.id.name, corpus.notes)
    return corpus


def tell(name: str, notes: Iterable[str]) -> None:
    """Log notes on a corpus, in the first process."""
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            logger.warning("corpus '%s': %s", name, note)


def _stdlib(_: str, valid_fraction: float) -> Splits:
    texts = []
    for file in walk(Path(sysconfig.get_path("stdlib")), STDLIB_SKIPPED, follow_links=False).files:
        # `_sysconfigdata*` and `config-*/` are written when Python is built and tell of that machine
        ours = file.suffix == ".py" and not file.name.startswith("_sysconfigdata")
        if not ours or file.parent.name.startswith("config-"):
            continue
        try:
            texts.append(Source(file).text)
        except InputError:  # a few sources are in other encodings on purpose
            continue
    train, valid, _notes = _hold_out_spread([text for text in texts if text], valid_fraction)
    return train, valid, []


def _wikitext(name: str, _: float) -> Splits:
    return *hub.wikitext(name), []


CORPORA: dict[str, Callable[[str, float], Splits]] = {
    "stdlib": _stdlib,
    "wikitext-2": _wikitext,
    "wikitext-103": _wikitext,
}


def _local(path: Path, text_field: str | None, valid_fraction: float, cache_dir: Path | None) -> Corpus:
    name = printable(resolved(path).name)
    if not path.is_dir():
        rows = read_file(path, text_field)
        train, valid, notes = _hold_out_end(rows.documents, valid_fraction)
        return Corpus.of(name, train, valid, [*(f"{remark}." for remark in rows.remarks), *notes])
    files = walk(path).files
    if not too_large(files):
        return Corpus.of(name, *_of_folder(path, text_field, valid_fraction))

    held: list[Corpus] = []

    def survey() -> Survey | None:
        found = Corpus.of(name, *_of_folder(path, text_field, valid_fraction))
        if not isinstance(found.train, Documents) or not isinstance(found.valid, Documents):
            held.append(found)
            return None
        return Survey(found.id.sha256, found.train, found.valid, found.notes)

    found = surveyed(path, files, (text_field, str(valid_fraction)), survey, cache_dir)
    if found is None:
        return held[0] if held else Corpus.of(name, *_of_folder(path, text_field, valid_fraction))
    return Corpus(CorpusId(name, found.sha256), found.train, found.valid, found.notes)


def _of_folder(path: Path, text_field: str | None, valid_fraction: float) -> Splits:
    folder = read_folder(path, text_field)
    if folder.valid is not None:
        return folder.train, folder.valid, folder.notes
    train, valid, notes = _hold_out_spread(folder.train, valid_fraction)
    return train, valid, [*folder.notes, *notes]


def _held(documents: Sequence[str]) -> Sequence[str]:
    return documents if isinstance(documents, Documents) else tuple(documents)


def characters(documents: Sequence[str]) -> int:
    """Return how long a text is, nearly where it is not in memory."""
    return documents.characters if isinstance(documents, Documents) else sum(map(len, documents))


def _hold_out_spread(documents: Sequence[str], fraction: float) -> Splits:
    """Hold out every n-th document, n = 1 / fraction; the end of the text where there are fewer than n."""
    n = round(1 / fraction)
    if len(documents) < n:
        return _hold_out_end(list(documents), fraction)
    note = f"no file is of a valid split, so one in {n} of its {len(documents):,} documents is held out."
    if isinstance(documents, Documents):
        return *documents.spread(n), [note]
    return [text for i, text in enumerate(documents, 1) if i % n], list(documents[n - 1 :: n]), [note]


def _hold_out_end(documents: Sequence[str], fraction: float) -> Splits:
    """Hold out the last documents; where they are too few for that, the last lines of their joined text."""
    why = "no file is of a valid split, so"
    if (held := round(len(documents) * fraction)) >= 1:
        note = f"{why} the last {held:,} of its {len(documents):,} documents are held out."
        return documents[:-held], documents[-held:], [note]
    text = "\n".join(documents)
    near = int(len(text) * (1 - fraction))
    line = text.find("\n", near) + 1
    cut = line if 0 < line < len(text) else near
    return [text[:cut]], [text[cut:]], [f"{why} its last {len(text) - cut:,} of {len(text):,} characters are held out."]


def _not_there(name_or_path: str) -> InputError:
    if "://" in name_or_path:
        return InputError(f"'{name_or_path}' is an address, and a corpus is a file or folder here: download it first.")
    if any(sign in name_or_path for sign in "*?["):
        return InputError(f"no such file or folder: '{name_or_path}' (patterns are not read: name the folder).")
    if os.sep in name_or_path or Path(name_or_path).suffix:
        return InputError(
            f"no such file or folder: '{name_or_path}' (a corpus is a path or one of {', '.join(CORPORA)})."
        )
    return InputError(f"{unknown('corpus', name_or_path, CORPORA)} A path of a text file or folder does too.")
