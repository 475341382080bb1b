"""Files of a stream, looked at before it runs: what is empty or broken is told by name, and not after days.

Of parquet the end of every file is read, where it says its rows and columns; of JSON lines the size alone. A stream
that stops later all the same is looked through for the file that did it.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from loopscale.data.folders import printable
from loopscale.data.readers import Source, read_file
from loopscale.data.readers.file_names import PARQUET_ENDINGS
from loopscale.data.readers.rows import text_column
from loopscale.errors import InputError


def looked_at(files: Sequence[Path], text_field: str | None) -> tuple[list[Path], str | None, list[str]]:
    """Return the files with rows, the column of text where their schemas tell it, and a note on each of the others.

    Raises `InputError` for a parquet file that cannot be read, or that lacks the column of those before it.
    """
    kept, column, notes = [], None, []
    for file in files:
        if not file.stat().st_size:
            notes.append(f"{printable(file.name)} is not streamed: it is empty.")
            continue
        source = Source(file)
        if source.ending in PARQUET_ENDINGS and source.compression is None:
            with source.guarded("parquet file"), pq.ParquetFile(file) as parquet:
                names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
            if not rows:
                notes.append(f"{printable(file.name)} is not streamed: it has no rows.")
                continue
            if column is not None and names.count(column) != 1:
                raise InputError(
                    f"{source.where} has no column '{column}', which the files before it have: rename it there, or "
                    "move the file away."
                )
            column = text_column(names, text_field if column is None else column, source.where)
        kept.append(file)
    return kept, column, notes


def culprit(files: Sequence[Path], column: str | None) -> InputError | None:
    """Return what is wrong with the first of these files that cannot be read, None where all can."""
    for file in files:
        try:
            read_file(file, column)
        except InputError as error:
            return error
    return None
