"""What a file's name says: the ending of its format, that of a compression, and whether it is about the data."""

from typing import NamedTuple

PAGE_ENDINGS = frozenset({".md", ".rst", ".tex", ".html"})
TEXT_ENDINGS = frozenset({".txt", ".text", ".tokens", ".raw"})
CODE_ENDINGS = frozenset({".py", ".c", ".h", ".cpp", ".hpp", ".js", ".ts", ".java", ".go", ".rs"})
JSON_ENDINGS = frozenset({".jsonl", ".ndjson", ".json"})
CSV_ENDINGS = frozenset({".csv", ".tsv"})
PARQUET_ENDINGS = frozenset({".parquet", ".pq"})
ARROW_ENDINGS = frozenset({".arrow", ".feather", ".ipc"})
ROW_ENDINGS = JSON_ENDINGS | CSV_ENDINGS | PARQUET_ENDINGS | ARROW_ENDINGS
READ_ENDINGS = PAGE_ENDINGS | TEXT_ENDINGS | CODE_ENDINGS | ROW_ENDINGS
COMPRESSIONS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".bz2": "bz2",
    ".xz": "xz",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".lz4": "lz4",
}
CARDS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


class Endings(NamedTuple):
    """A file name in parts: `a.JSONL.gz` is `a`, `.jsonl` and `.gz`."""

    stem: str
    format: str
    compression: str


def endings(name: str) -> Endings:
    """Return a file name's parts, endings in lower case; an ending that nothing is known of stays in the stem."""
    stem, compression = _cut(name, frozenset(COMPRESSIONS))
    stem, ending = _cut(stem, READ_ENDINGS)
    return Endings(stem, ending, compression)


def is_card(name: str) -> bool:
    """Return whether a file of that name tells about the data it lies beside: a card, a licence, a record."""
    low = name.lower()
    stem = low.split(".")[0]
    return low in CARDS or (stem in {"readme", "license", "licence"} and endings(name).format not in ROW_ENDINGS)


def _cut(name: str, known: frozenset[str]) -> tuple[str, str]:
    stem, dot, last = name.rpartition(".")
    ending = f".{last.lower()}"
    return (stem, ending) if dot and stem and ending in known else (name, "")
