"""Files to documents: plain text, JSON, CSV, parquet and Arrow, compressed or not."""

from loopscale.data.readers.file_names import (
    CODE_ENDINGS,
    PAGE_ENDINGS,
    READ_ENDINGS,
    endings,
    is_card,
)
from loopscale.data.readers.registry import read_file
from loopscale.data.readers.rows import NoText, Rows
from loopscale.data.readers.source import Source, existing

__all__ = [
    "CODE_ENDINGS",
    "PAGE_ENDINGS",
    "READ_ENDINGS",
    "NoText",
    "Rows",
    "Source",
    "endings",
    "existing",
    "is_card",
    "read_file",
]
