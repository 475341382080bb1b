"""The reader of a file: by its first bytes where they tell, else by its ending, else as plain text."""

import json
from collections.abc import Callable
from pathlib import Path

from loopscale.data.readers.columns import read_arrow, read_parquet
from loopscale.data.readers.csv_rows import read_csv
from loopscale.data.readers.file_names import ARROW_ENDINGS, CSV_ENDINGS, JSON_ENDINGS, PARQUET_ENDINGS
from loopscale.data.readers.json_rows import read_json
from loopscale.data.readers.rows import NoText, Rows
from loopscale.data.readers.signatures import ARROW_FILE, ARROW_STREAM, PARQUET, table_of
from loopscale.data.readers.source import Source
from loopscale.errors import InputError

Reader = Callable[[Source, str | None], Rows]

TABLES: dict[bytes, Reader] = {PARQUET: read_parquet, ARROW_FILE: read_arrow, ARROW_STREAM: read_arrow}
READERS: dict[str, Reader] = {
    **dict.fromkeys(JSON_ENDINGS, read_json),
    **dict.fromkeys(CSV_ENDINGS, read_csv),
    **dict.fromkeys(PARQUET_ENDINGS, read_parquet),
    **dict.fromkeys(ARROW_ENDINGS, read_arrow),
}


def read_file(file: Path, text_field: str | None = None) -> Rows:
    """Return the documents of a file: its rows, or its whole text as one.

    Args:
        file: of any format that `READERS` names, compressed or not; anything else is read as text.
        text_field: the column or field that holds the text; None finds it (see `text_column`).

    Raises:
        NoText: rows without that column.
        InputError: the file cannot be read, or is not what it is called, in one sentence.
    """
    source = Source(file)
    source.check()
    try:
        found = _reader(source)(source, text_field)
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror or error}.") from error
    if found.column is not None and not found.documents:
        raise NoText(
            f"'{file}': '{found.column}' holds no text ({found.null:,} rows are null, {found.empty:,} empty): fill it, "
            "or name another as text_field."
        )
    if text_field is None and found.column not in (None, "text"):
        found.remarks.append(f"the text is read from '{found.column}'")
    if skipped := found.null + found.empty:
        found.remarks.append(f"{skipped:,} rows without text are skipped ({found.null:,} null, {found.empty:,} empty)")
    return found


def read_text(source: Source, text_field: str | None = None) -> Rows:
    """Return the whole text as one document; JSON lines, and endings that nothing is known of, are remarked on."""
    found = Rows()
    if _is_lines(source):
        found.remarks.append("read as plain text, though its lines are JSON: end its name in .jsonl to read their rows")
    elif not source.ending and (suffix := Path(source.path.name).suffix):
        found.remarks.append(f"read as plain text, for nothing is known of the ending '{suffix}'")
    if source.text:
        found.documents.append(source.text)
    return found


def _reader(source: Source) -> Reader:
    if not source.head:
        return read_text  # nothing, whatever it is called
    if table := table_of(source.head):
        return TABLES[table]
    if not source.ending and _is_lines(source):
        return read_json
    return READERS.get(source.ending, read_text)


def _is_lines(source: Source) -> bool:
    """Return whether the first two lines are JSON objects."""
    if not source.text.startswith("{"):
        return False
    lines = source.text[:100_000].split("\n", 2)[:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False
