"""Formats told by their first bytes: compressions that are unpacked, and what holds no text to read."""

import zipfile
from pathlib import Path
from typing import NamedTuple, NoReturn

from loopscale.errors import InputError

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff"
UNPACK = "unpack it and name what was in it"
CONVERT = "save its text as a UTF-8 .txt file or as JSONL"
WEIGHTS = "a corpus is text, and this holds numbers of a model"


class Foreign(NamedTuple):
    """A format that is not read: the bytes it has at a place, what it is called, and the way out."""

    magic: bytes
    name: str
    advice: str
    place: int = 0
    binary: bool = False  # only with a zero byte near it: the magic alone may begin a text


FOREIGN = (
    Foreign(
        b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself", "fetch it (git lfs pull)"
    ),
    Foreign(b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Foreign(b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    Foreign(b"ustar", "a tar archive", UNPACK, place=257),
    Foreign(b"\x1f\x9d", "a compress (.Z) file", UNPACK),
    Foreign(b"\xff\x06\x00\x00sNaPpY", "a Snappy file", UNPACK),
    Foreign(b"%PDF-", "a PDF", CONVERT),
    Foreign(b"{\\rtf", "a rich text (RTF) file", CONVERT),
    Foreign(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office file (doc, xls)", CONVERT),
    Foreign(b"SQLite format 3\x00", "an SQLite database", "export its text as CSV or JSONL"),
    Foreign(b"\x89HDF\r\n\x1a\n", "an HDF5 file", CONVERT),
    Foreign(b"Obj\x01", "an Avro file", "save it as parquet or JSONL"),
    Foreign(b"ORC", "an ORC file", "save it as parquet or JSONL", binary=True),
    Foreign(b"FEA1", "a Feather file of version 1", "write it anew with pyarrow.feather.write_feather", binary=True),
    Foreign(b"\x93NUMPY", "a NumPy array", "a corpus is text: give the text that the array was made from"),
    Foreign(b"MMIDIDX\x00", "a Megatron index", "a corpus is text: give the text that it was made from"),
    Foreign(b"GGUF", "a GGUF file", WEIGHTS, binary=True),
    Foreign(b'{"', "a safetensors file", WEIGHTS, place=8, binary=True),
    Foreign(b"\x89PNG", "a PNG image", CONVERT),
    Foreign(b"\xff\xd8\xff", "a JPEG image", CONVERT),
    Foreign(b"GIF8", "a GIF image", CONVERT, binary=True),
    Foreign(b"RIFF", "a sound, image or film (RIFF)", CONVERT, binary=True),
    Foreign(b"OggS", "an Ogg sound", CONVERT, binary=True),
    Foreign(b"fLaC", "a FLAC sound", CONVERT, binary=True),
    Foreign(b"ID3", "an MP3 sound", CONVERT, binary=True),
    Foreign(b"ftyp", "an MP4 film", CONVERT, place=4, binary=True),
    Foreign(b"\x7fELF", "a program", CONVERT),
    Foreign(b"MZ", "a program", CONVERT, binary=True),
    Foreign(b"\xff\xfe\x00\x00", "text in UTF-32", "convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    Foreign(b"\x00\x00\xfe\xff", "text in UTF-32", "convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    Foreign(b"\xff\xfe", "text in UTF-16", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    Foreign(b"\xfe\xff", "text in UTF-16", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
)
IN_ZIP = {
    "word/": "a Word document (docx)",
    "xl/": "an Excel sheet (xlsx)",
    "ppt/": "a PowerPoint file (pptx)",
    "META-INF/container.xml": "an EPUB book",
    "content.xml": "an OpenDocument file",
    "data.pkl": "a PyTorch file",
    ".npy": "a NumPy archive (npz)",
}


def table_of(head: bytes) -> bytes | None:
    """Return the first bytes of a parquet or Arrow file, None where it is neither."""
    return next(
        (magic for magic in (PARQUET, ARROW_FILE, ARROW_STREAM) if head.startswith(magic) and b"\x00" in head), None
    )


def compression_of(head: bytes) -> str | None:
    """Return how a file that begins so is compressed, None where it is not."""
    return next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)


def refuse_foreign(head: bytes, file: Path) -> None:
    """Raise `InputError`, with the format's name and a way out, for a file that begins as no readable one does."""
    if table_of(head):
        return
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        _refuse_zip(file)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 2:
        _refuse(file, "a pickle", "save its text as JSONL or parquet")
    for format in FOREIGN:
        if head[format.place :].startswith(format.magic) and (not format.binary or b"\x00" in head):
            _refuse(file, format.name, format.advice)
    for offset, name in ((0, "UTF-16BE"), (1, "UTF-16LE")):
        half = head[offset::2]
        if len(half) >= 8 and half.count(0) > 0.7 * len(half) and head.count(0) < 0.6 * len(head):
            _refuse(file, f"text in {name}", f"convert it to UTF-8 (iconv -f {name} -t UTF-8)")


def _refuse_zip(file: Path) -> NoReturn:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):  # the last: of an archive of a later version
        names = []
    for part, name in IN_ZIP.items():
        if any(part in inside for inside in names):
            _refuse(file, name, WEIGHTS if part in ("data.pkl", ".npy") else CONVERT)
    _refuse(file, "a zip archive", UNPACK)


def _refuse(file: Path, name: str, advice: str) -> NoReturn:
    raise InputError(f"'{file}' is {name}: {advice}.")
