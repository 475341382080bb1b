"""Source of a stream: documents of a data set of the hub, or of files here, one after the other.

`datasets` reads them: parquet and JSON lines, compressed or not, without a copy on disk.
"""

import glob
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from loopscale.data import hub
from loopscale.data.corpora import Corpus, CorpusId
from loopscale.data.disk_cache import digest
from loopscale.data.folders import printable, split_by_name, walk
from loopscale.data.readers import endings, existing
from loopscale.data.readers.rows import Rows, text_column
from loopscale.data.streaming.local_files import culprit, looked_at
from loopscale.errors import InputError
from loopscale.storage import resolved

BUILDERS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json"}
HELD_OUT = 100  # one in so many documents is for validation, where nothing says which are
MOST_VALID = 256  # documents to validate on
NAMES = 2  # parts of a name on the hub; a third is a configuration of the data set


@final
@dataclass(frozen=True)
class TextStream:
    """Streams of `datasets` to train and to validate on, and the column of text; the same stream holds some out."""

    id: CorpusId
    train: Any
    valid: Any | None
    column: str
    notes: tuple[str, ...] = ()  # on what is not streamed
    files: tuple[Path, ...] = ()  # where it lies here

    def trained_on(self, text: str) -> bool:
        """Return whether a document is to train on. Its content decides, so that no copy of it stands on both sides."""
        return bool(text) and (self.valid is not None or zlib.crc32(text.encode()) % HELD_OUT != 0)

    def held_out(self) -> Corpus:
        """Return a corpus of nothing to train on and the first documents to validate on.

        Raises `InputError` where there are none.
        """
        found: list[str] = []
        for text in documents(self.train if self.valid is None else self.valid, self.column, self.files):
            if text and (self.valid is not None or not self.trained_on(text)):
                found.append(text)
                if len(found) == MOST_VALID:
                    break
        if not found:
            raise InputError(
                f"corpus '{self.id.name}' has no text to validate on: one in {HELD_OUT} of its documents is held out; "
                "give a file that is called valid beside the others."
            )
        return Corpus(CorpusId(self.id.name, digest(self.id.sha256, *found)), (), tuple(found), self.notes)


def stream_of(name: str, text_field: str | None = None) -> TextStream:
    """Return the stream of a folder or file here, or of a data set of the hub: OWNER/NAME or OWNER/NAME/CONFIGURATION.

    Raises `InputError` for what is neither, and where no column is the text.
    """
    path = existing(name)
    if path is not None:
        return _local(path, name, text_field)
    identity, train, valid = _of_hub(name)
    return TextStream(identity, train, valid, _column_of(train, name, text_field))


def _column_of(stream: Any, name: str, text_field: str | None, files: Sequence[Path] = ()) -> str:
    """Return the column of text, by the first row."""
    try:
        first = next(iter(stream), None)
    except Exception as error:  # `datasets` raises whatever it comes across
        raise culprit(files[:1], text_field) or InputError(
            f"corpus '{name}' cannot be streamed ({_said(error)})."
        ) from error
    if first is None:
        raise InputError(f"corpus '{name}' is empty: give it some text.")
    return text_column(list(first), text_field, f"'{name}'")


def _local(path: Path, name: str, text_field: str | None) -> TextStream:
    from datasets import load_dataset

    found = walk(path if path.is_dir() else path.parent)
    files = [file for file in found.files if endings(file.name).format in BUILDERS] if path.is_dir() else [path]
    full, column, notes = looked_at(files, text_field)
    split = split_by_name(found, full)
    here = (*split.train, *split.valid)
    kinds = {BUILDERS.get(endings(file.name).format) for file in here}
    if len(kinds) != 1 or None in kinds:
        empty = f" ({notes[0].rstrip('.')})" if notes else ""
        raise InputError(f"'{path}' cannot be streamed{empty}: give files of one kind, parquet or JSON lines.")
    (kind,) = kinds
    # of other columns, which need not be the same in every file, nothing is read
    only = {} if column is None else {"columns": [column]}

    def stream(of: Sequence[Path]) -> Any:
        names = [glob.escape(str(file)) for file in of]
        return load_dataset(kind, data_files=names, split="train", streaming=True, **only)

    # to read the whole text for its hash is what a stream is to spare: names and sizes stand for it
    sizes = [part for file in here for part in (os.fsencode(found.name(file)), file.stat().st_size)]
    identity = CorpusId(printable(resolved(path).name), digest("stream", *sizes))
    passed = [f for f in found.files if endings(f.name).format not in BUILDERS] if path.is_dir() else []
    notes += [f"{found.name(file)} is not streamed: it is no parquet or JSON lines." for file in passed]
    train, valid = stream(split.train), stream(split.valid) if split.valid else None
    column = column or _column_of(train, name, text_field, split.train)
    return TextStream(identity, train, valid, column, tuple(notes), here)


def _of_hub(name: str) -> tuple[CorpusId, Any, Any]:
    from datasets import load_dataset
    from huggingface_hub import dataset_info

    parts = name.split("/")
    if not NAMES <= len(parts) <= NAMES + 1:
        raise InputError(
            f"no such file or folder: '{name}', and no name of a data set on the hub (OWNER/NAME or "
            "OWNER/NAME/CONFIGURATION)."
        )
    if why := hub.trouble():
        raise InputError(f"corpus '{name}' is streamed from the hub, and there is {why}: give files here.")
    repo, configuration = "/".join(parts[:NAMES]), parts[NAMES] if len(parts) > NAMES else None

    def asked(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:  # the libraries raise whatever they come across
            raise InputError(f"the hub does not give '{name}' ({_said(error)}).") from error

    revision = asked(lambda: dataset_info(repo).sha)  # the text is that of one day, also when the run goes on
    splits = asked(lambda: load_dataset(repo, configuration, revision=revision, streaming=True))
    if "train" not in splits:
        raise InputError(f"'{name}' has no split to train on: it has {', '.join(splits)}.")
    valid = next((splits[name] for name in ("validation", "valid", "dev") if name in splits), None)
    return CorpusId(name, digest("stream", repo, configuration, revision)), splits["train"], valid


def share_of(stream: Any, rank: int, processes: int) -> Any:
    """Return the documents of one process: whole files where their number is a multiple of the processes'."""
    from datasets.distributed import split_dataset_by_node

    return split_dataset_by_node(stream, rank=rank, world_size=processes)


def documents(stream: Any, column: str, files: Sequence[Path] = ()) -> Iterator[str]:
    """Yield the texts of a stream from where it stands.

    Raises `InputError` for what cannot be read or is no text, with the first of `files` that is to blame.
    """
    rows = Rows(column=column)
    try:
        for row in stream:
            rows.add(row[column], "a row of the stream")
            yield rows.documents.pop() if rows.documents else ""
    except InputError:
        raise
    except Exception as error:  # `datasets` raises whatever it comes across
        raise culprit(files, column) or InputError(f"the stream cannot be read on ({_said(error)}).") from error


def _said(error: Exception) -> str:
    """Return the kind of an error and its first line, which may be long."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200].rstrip('.')}"
