"""Folder as documents: which of its files are text, what each gave, and what was left out."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, final

from loopscale.data.folders.splits import split_by_name
from loopscale.data.folders.traversal import Walk, listed, walk, without_twins
from loopscale.data.readers import (
    CODE_ENDINGS,
    PAGE_ENDINGS,
    READ_ENDINGS,
    NoText,
    endings,
    is_card,
    read_file,
)
from loopscale.data.sharded.documents import Documents, Shard, Stamp, too_large
from loopscale.errors import InputError
from loopscale.storage import read_json

SHARD = re.compile(r"-(\d+)-of-(\d+)\b")
SAVED = "state.json"  # what `Dataset.save_to_disk` writes beside its Arrow files


@final
@dataclass
class Folder:
    """The documents of a folder; `valid` is None where no name tells what to validate on."""

    train: Sequence[str]
    valid: Sequence[str] | None
    notes: list[str]


def read_folder(path: Path, text_field: str | None) -> Folder:
    """Return the documents of a folder's files in the order of their paths, split as their names say.

    Raises:
        InputError: no file is text, one cannot be read, or none of a split has the column.
    """
    found = walk(path)
    split = split_by_name(found, without_twins(found, _texts(found)))
    hold = _on_disk if too_large([*split.train, *split.valid]) else _in_memory
    rows = {
        file: read for part in (split.train, split.valid) for file, read in _read(found, part, text_field, hold).items()
    }
    if not rows:
        raise _no_text(found)
    train, valid = [file for file in split.train if file in rows], [file for file in split.valid if file in rows]
    return Folder(
        train=_documents(rows[file] for file in train),
        valid=_documents(rows[file] for file in valid) if split.valid else None,
        notes=[
            *_split_notes(found, train, valid),
            *_missing_shards([found.name(file) for file in rows]),
            *_notes({found.name(file): of_file for file, of_file in rows.items()}),
            *_left_out(found),
        ],
    )


@final
@dataclass(frozen=True)
class _Read:
    """What there is to know of a file that was read; its documents, or where they lie."""

    documents: list[str] | Shard
    column: str | None
    remarks: list[str]


def _in_memory(file: Path, text_field: str | None) -> _Read:
    rows = read_file(file, text_field)
    return _Read(rows.documents, rows.column, rows.remarks)


def _on_disk(file: Path, text_field: str | None) -> _Read:
    stamp = Stamp.of(file)
    rows = read_file(file, text_field)
    return _Read(Shard.of(file, text_field, stamp, rows.documents), rows.column, rows.remarks)


def _documents(files: Iterable[_Read]) -> Sequence[str]:
    held = [read.documents for read in files]
    if held and all(isinstance(documents, Shard) for documents in held):
        return Documents.joined(shard for shard in held if isinstance(shard, Shard))
    return list(chain.from_iterable(held))


def _read(
    found: Walk, files: list[Path], text_field: str | None, hold: Callable[[Path, str | None], _Read]
) -> dict[Path, _Read]:
    """Return what the files of a split gave; those without the column, and those that hold nothing, are left out."""
    rows: dict[Path, _Read] = {}
    missing: NoText | None = None
    code = {file for file in files if endings(file.name).format in CODE_ENDINGS}
    for file in sorted(files, key=code.__contains__):  # programs last, else in order
        beside_rows = any(read.column is not None for read in rows.values())
        if not file.stat().st_size:
            found.leave_out(file, "empty")
        elif file in code and beside_rows:  # what made the rows, or loads them
            found.leave_out(file, "a program beside the data")
        else:
            try:
                rows[file] = hold(file, text_field)
            except NoText as error:
                missing = missing or error
                found.leave_out(file, _without_place(error, file))
    if missing and not rows:
        raise missing
    return rows


def _texts(found: Walk) -> list[Path]:
    """Return the files whose ending is read and that are not about the data; the others are left out."""
    saved = _saved_files(found)
    names = {found.name(file) for file in found.files}
    texts, cards = [], []
    for file in found.files:
        name, ending = found.name(file), endings(file.name)
        if is_card(file.name):
            cards.append(file)
        elif ending.format not in READ_ENDINGS:
            found.leave_out(file, f"'{file.suffix}' is not read" if file.suffix else "it has no ending")
        elif ending.compression and name.removesuffix(file.suffix) in names:
            found.leave_out(file, "its unpacked file is there")
        elif file.parent in saved and ending.format == ".arrow" and file.name not in saved[file.parent]:
            found.leave_out(file, f"not of the data set by its {SAVED}")
        else:
            texts.append(file)
    if not texts:
        texts = [file for file in cards if endings(file.name).format in PAGE_ENDINGS]
    for card in cards:
        if card not in texts:
            found.leave_out(card, "about the data")
    return texts


def _saved_files(found: Walk) -> dict[Path, set[str]]:
    """Return the Arrow files that belong to each data set of `save_to_disk`; others are left of an earlier save."""
    saved = {}
    for state in (file for file in found.files if file.name == SAVED):
        try:
            record = read_json(state, dict[str, Any])
            files = {entry["filename"] for entry in record["_data_files"]}
        except (ValueError, KeyError, TypeError):
            continue  # not a record of `datasets`
        if record.get("_indices_data_files") or record.get("_indices_files"):
            raise InputError(
                f"'{state.parent}' was written by save_to_disk of an old `datasets`, with an order of its own: load it "
                "with that library and save it anew."
            )
        saved[state.parent] = files
    return saved


def _split_notes(found: Walk, train: list[Path], valid: list[Path]) -> list[str]:
    """Return what the names of the files decided."""
    if not valid:
        return []
    train_names, valid_names = ([found.name(file) for file in part] for part in (train, valid))
    notes = [f"by their names, train is {listed(train_names)}; valid is {listed(valid_names)}."]
    folders = sorted({found.name(file.parent) for file in valid} - {"."})
    if len(folders) > 1:
        notes.append(f"the splits of {listed(folders)} are read together: name one of these folders to read it alone.")
    return notes


def _missing_shards(names: list[str]) -> list[str]:
    """Return what to say of files that say `00000-of-00003` in their names, where not all three are there."""
    shards: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if found := SHARD.search(name):
            shards.setdefault((name[: found.start()], int(found[2])), set()).add(int(found[1]))
    return [
        f"of {total:,} files {prefix}-*-of-{total:05} only {len(there):,} are there."
        for (prefix, total), there in sorted(shards.items())
        if len(there) < total
    ]


def _notes(files: dict[str, _Read]) -> list[str]:
    """Return the remarks on the rows of several files, those that are alike in one sentence."""
    alike: dict[str, list[str]] = {}
    for name, rows in files.items():
        for remark in rows.remarks:
            alike.setdefault(remark, []).append(name)
    return [f"{listed(names)}: {remark}." for remark, names in alike.items()]


def _left_out(found: Walk) -> list[str]:
    """Return one sentence on everything that is not read, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in sorted(found.left_out):
        reasons.setdefault(why, []).append(name)
    if not reasons:
        return []
    return ["left out: " + "; ".join(f"{listed(names)} ({why})" for why, names in reasons.items()) + "."]


def _without_place(error: InputError, file: Path) -> str:
    """Return what an error says of a file, without its path and without the advice."""
    said = str(error).replace(f"'{file}', ", "").replace(f"'{file}': ", "")
    return said.partition("; its ")[0].rstrip(".")


def _no_text(found: Walk) -> InputError:
    left = listed([f"{name} ({why})" for name, why in found.left_out]) or "it is empty"
    kinds = " ".join(sorted(READ_ENDINGS))
    return InputError(f"folder '{found.folder}' holds no text files ({left}); these endings are read: {kinds}.")
