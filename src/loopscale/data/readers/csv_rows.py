"""CSV and TSV as rows: the first line names the columns, quotes hold what has delimiters or line ends in it."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loopscale.data.readers.rows import NoText, Rows, text_column
from loopscale.data.readers.source import Source
from loopscale.errors import InputError

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}


def read_csv(source: Source, text_field: str | None) -> Rows:
    """Return the text of each row of a CSV file, whose delimiter is the one that finds the text's column.

    Raises:
        NoText: no such column.
        InputError: a row of another length than the header's, or quotes that do not fit, naming the line.
    """
    header, delimiter = _header(source, text_field)
    found = Rows(column=header)
    with _long_fields():
        reader = csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter, strict=True)
        try:
            names = next(reader)
            place = [name.strip() for name in names].index(header)
            for row in reader:
                if row and len(row) != len(names):
                    raise InputError(
                        f"{source.where}, line {reader.line_num}: {len(row)} fields, but {len(names)} in the header: "
                        "put text that holds delimiters into double quotes."
                    )
                if row:
                    found.add(row[place], f"{source.where}, line {reader.line_num}")
        except csv.Error as error:
            raise InputError(
                f"{source.where}, line {reader.line_num}: not CSV ({error}): quotes in a text are written twice."
            ) from error
    return found


def _header(source: Source, text_field: str | None) -> tuple[str, str]:
    """Return the name of the text's column and the delimiter that finds it."""
    problem: InputError | None = None
    for delimiter in DELIMITERS[source.ending]:
        with _long_fields():
            try:
                names = next(csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter, strict=True), [])
                return text_column([name.strip() for name in names], text_field, source.where), delimiter
            except csv.Error as error:
                problem = problem or InputError(f"{source.where}, line 1: not CSV ({error}).")
            except NoText as error:
                problem = problem or error
    assert problem is not None
    raise problem


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let a field be as long as a document; the limit is the whole process's, so it is given back."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
