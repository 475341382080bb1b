"""A file to read: unpacked where it is compressed, refused by name where it is no text, decoded from UTF-8."""

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import pyarrow as pa

from loopscale.data.readers.file_names import COMPRESSIONS, endings
from loopscale.data.readers.signatures import compression_of, refuse_foreign
from loopscale.errors import InputError
from loopscale.storage import kind_of

HEAD = 4096  # bytes that tell what a file is


def existing(name: str) -> Path | None:
    """Return the file or folder of that name, None if there is none or the name cannot be a path."""
    path = Path(name)
    try:
        path = path.expanduser() if name.startswith("~/") else path
        return path if name and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, with a zero in it, or in nobody's home
        return None


@final
@dataclass
class Source:
    """One file: its path, and its content as it is meant, without compression."""

    path: Path

    @property
    def where(self) -> str:
        """The file, for a sentence."""
        return f"'{self.path}'"

    @property
    def ending(self) -> str:
        """The ending that tells the format, in lower case; empty where none is known."""
        return endings(self.path.name).format

    @cached_property
    def compression(self) -> str | None:
        """How the file is compressed, by its first bytes."""
        return compression_of(self._first)

    @cached_property
    def head(self) -> bytes:
        """The first bytes of the content."""
        return self.data[:HEAD] if self.compression else self._first

    @cached_property
    def data(self) -> bytes:
        """The content."""
        if self.compression is None:
            return self.path.read_bytes()
        with self.guarded(f"{self.compression} file"):
            if self.compression == "xz":  # which pyarrow does not know
                with lzma.open(self.path) as unpacked:
                    return unpacked.read()
            with pa.input_stream(str(self.path), compression=self.compression) as stream:
                return bytes(stream.read())

    @cached_property
    def text(self) -> str:
        """The content as text, without a byte-order mark, CRLF as LF.

        Raises `InputError` where it is not UTF-8, naming the first wrong byte.
        """
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            advice = "Convert it to UTF-8 (for example with iconv) or leave it out."
            if b"\x00" in self.head:  # token ids, for instance
                advice = "It has zero bytes too, so it is no text in any encoding: give the text that it was made from."
            raise InputError(
                f"{self.where} is not UTF-8 text: byte {error.start} is 0x{self.data[error.start]:02x}. {advice}"
            ) from error
        return text.removeprefix("\ufeff").replace("\r\n", "\n")

    def check(self) -> None:
        """Raise `InputError` if this is no file, or one of a format that holds no text to read."""
        if (kind := kind_of(self.path)) != "file":
            raise InputError(f"{self.where} is {kind}, not a file: write the text to a file and name that.")
        try:
            named = COMPRESSIONS.get(endings(self.path.name).compression)
            if named and self._first and not self.compression:
                raise InputError(f"{self.where} is called a {named} file and is none: rename it, or fetch it anew.")
            refuse_foreign(self.head, self.path)
        except OSError as error:
            raise InputError(f"cannot read {self.where}: {error.strerror or error}.") from error

    @contextmanager
    def guarded(self, kind: str) -> Iterator[None]:
        """Turn whatever a library raises on the content into one sentence that names the file and its `kind`."""
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # pyarrow alone raises six kinds, and damaged files find more
            reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
            raise InputError(f"{self.where} is not a readable {kind} ({reason}): make or fetch it anew.") from error

    @cached_property
    def _first(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(HEAD)
