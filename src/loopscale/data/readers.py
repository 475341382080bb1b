"""Files to documents: plain text, JSONL and parquet, one file or a folder of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from loopscale.errors import InputError

PROSE_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst", ".tex", ".html", ".tokens", ".raw"})
CODE_SUFFIXES = frozenset({".py", ".c", ".h", ".cpp", ".hpp", ".js", ".ts", ".java", ".go", ".rs"})
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
SUFFIXES = PROSE_SUFFIXES | CODE_SUFFIXES | JSON_SUFFIXES | {".parquet"}
SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid"}


def existing(name: str) -> Path | None:
    """Return the file or folder of that name, None if there is none or the name cannot be a path."""
    path = Path(name)
    try:
        path = path.expanduser() if name.startswith("~/") else path
        return path if name and path.exists() else None
    except OSError:  # a name longer than the file system takes
        return None


def read_documents(file: Path, text_field: str) -> list[str]:
    """Return the documents of a file: rows of JSONL or parquet (column `text_field`), else its whole text.

    Empty documents are left out, a byte-order mark too, and CRLF becomes LF as in Python's text mode.

    Raises:
        InputError: the file cannot be read, is not UTF-8, has a broken line or no such column.
    """
    try:
        if file.suffix in JSON_SUFFIXES:
            documents = list(_jsonl(file, text_field))
        elif file.suffix == ".parquet":
            documents = _parquet(file, text_field)
        else:
            documents = [decode(file)]
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror or error}.") from error
    return [document for document in documents if document]


def decode(file: Path) -> str:
    """Return the text of a UTF-8 file, or raise an InputError that names the first wrong byte."""
    data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{file}' is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}. "
            "Convert it to UTF-8 (for example with iconv) or leave it out."
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def walk(folder: Path, suffixes: frozenset[str], skip: frozenset[str] = frozenset()) -> list[Path]:
    """Return the files under `folder` that end in `suffixes`, sorted by relative posix path.

    Folders named in `skip` are not entered, nor hidden ones.
    """
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    wanted = (file for file in found if file.suffix in suffixes)
    return sorted(wanted, key=lambda file: file.relative_to(folder).as_posix())


def split_files(folder: Path) -> dict[str, list[Path]] | None:
    """Return the files of `train` and `valid` where the folder holds both by name, else None.

    `train.txt`, `valid.jsonl`, `wiki.train.tokens` and `validation-00000-of-00001.parquet` are such names.
    """
    splits: dict[str, list[Path]] = {"train": [], "valid": []}
    for file in sorted(folder.iterdir()):
        words = [part.split("-")[0] for part in file.stem.split(".")]
        role = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        if role and file.is_file() and file.suffix in SUFFIXES:
            splits[role].append(file)
    return splits if all(splits.values()) else None


def _jsonl(file: Path, text_field: str) -> Iterator[str]:
    for number, line in enumerate(decode(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"'{file}', line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not JSON ({error.msg}, column {error.colno}); one object per line is needed."
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is needed, this is {type(row).__name__}.")
        yield _field(row, text_field, where)


def _field(row: dict, text_field: str, where: str) -> str:
    if text_field not in row:
        there = ", ".join(sorted(row)) or "none"
        raise InputError(f"{where}: no field '{text_field}'; its fields are: {there}. Name one as text_field.")
    if not isinstance(row[text_field], str):
        kind = type(row[text_field]).__name__
        raise InputError(f"{where}: field '{text_field}' must be a string, this is {kind}.")
    if not row[text_field].isascii() and any("\ud800" <= c <= "\udfff" for c in row[text_field]):
        raise InputError(f"{where}: field '{text_field}' holds half a surrogate pair, which is not text.")
    return row[text_field]


def _parquet(file: Path, text_field: str) -> list[str]:
    try:
        schema = pq.read_schema(file)
        if text_field not in schema.names:
            there = ", ".join(schema.names)
            raise InputError(f"'{file}': no column '{text_field}'; its columns are: {there}. Name one as text_field.")
        column = pq.read_table(file, columns=[text_field]).column(text_field)
    except pa.ArrowInvalid as error:
        raise InputError(f"'{file}' is not a readable parquet file ({error}).") from error
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"'{file}': column '{text_field}' must hold strings, it holds {column.type}.")
    return column.drop_null().to_pylist()
