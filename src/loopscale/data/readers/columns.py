"""Parquet and Arrow files as rows: one column of strings, however they are stored."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loopscale.data.readers.rows import Rows, text_column
from loopscale.data.readers.signatures import ARROW_STREAM
from loopscale.data.readers.source import Source
from loopscale.errors import InputError


def read_parquet(source: Source, text_field: str | None) -> Rows:
    """Return the text column of a parquet file; raises `NoText` or `InputError` where there is none that is text."""
    with source.guarded("parquet file"), pq.ParquetFile(_input(source)) as file:
        names = file.schema_arrow.names
        return _text(source, names, text_field, lambda column: file.read(columns=[column]).column(column))


def read_arrow(source: Source, text_field: str | None) -> Rows:
    """Return the text column of an Arrow file or stream (Feather too), as `datasets` writes them.

    Raises `NoText` or `InputError` where there is none that is text.
    """
    kind = "stream" if source.head.startswith(ARROW_STREAM) else "file"
    opened = pa.ipc.open_stream if kind == "stream" else pa.ipc.open_file
    with source.guarded(f"Arrow {kind}"), opened(_input(source)) as reader:
        return _text(source, reader.schema.names, text_field, lambda column: reader.read_all().column(column))


def _input(source: Source) -> pa.NativeFile:
    return pa.BufferReader(source.data) if source.compression else pa.memory_map(str(source.path))


def _text(source: Source, names: list[str], text_field: str | None, read: Callable[[str], pa.ChunkedArray]) -> Rows:
    found = Rows(column=text_column(names, text_field, source.where))
    assert found.column is not None
    values = _strings(read(found.column), found.column, source)
    _check_utf8(values, found.column, source)
    for value in values.to_pylist():
        found.add(value, source.where)
    return found


def _strings(values: pa.ChunkedArray, column: str, source: Source) -> pa.ChunkedArray:
    """Return a column as plain strings: categories, runs and views are ways to store them."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], kind.storage_type)
    if pa.types.is_dictionary(values.type) and _is_text(values.type.value_type):
        values = values.cast(values.type.value_type)
    elif pa.types.is_run_end_encoded(values.type) and _is_text(values.type.value_type):
        values = pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], values.type.value_type)
    if pa.types.is_null(values.type):
        return values
    if not _is_text(values.type):
        raise InputError(
            f"{source.where}: column '{column}' must hold strings, it holds {kind}: convert it, or name another column "
            "as text_field."
        )
    return values


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _check_utf8(values: pa.ChunkedArray, column: str, source: Source) -> None:
    """Raise `InputError`, naming the row, where bytes that are called strings are not UTF-8."""
    row = 0
    for chunk in values.chunks:
        try:
            chunk.validate(full=True)
        except pa.ArrowInvalid as error:
            for value in chunk:
                row += 1
                try:
                    value.as_py()
                except UnicodeDecodeError:
                    break
            raise InputError(
                f"{source.where}: column '{column}' is not UTF-8 text in row {row}: convert it to UTF-8 where the file "
                "is made, or leave the row out."
            ) from error
        row += len(chunk)
