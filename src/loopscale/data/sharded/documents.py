"""Documents of files that are too large together for memory: read file after file, whenever they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, final, overload

from loopscale.data.readers import read_file
from loopscale.errors import InputError

IN_MEMORY = 64 * 2**20  # bytes of files that are held at once; more of them are read one after the other


class Stamp(NamedTuple):
    """What the file system says of a file's content: bytes, and when it and its record were last changed, in ns."""

    size: int
    changed: int
    recorded: int

    @classmethod
    def of(cls, file: Path) -> "Stamp":
        """Return the stamp of a file as it is now."""
        found = file.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def too_large(files: Sequence[Path]) -> bool:
    """Return whether files are to be read one after the other rather than held at once."""
    return len(files) > 1 and sum(file.stat().st_size for file in files) > IN_MEMORY


@final
@dataclass(frozen=True)
class Shard:
    """The documents of one file, or those of them that are held out, or the others.

    documents, characters: of the whole file. first: documents of the text before it. every: one document of the text
    in so many is held out, the last of them; 0 for none. held_out: whether those are meant, or the others.
    """

    file: str
    text_field: str | None
    stamp: Stamp
    documents: int
    characters: int
    first: int = 0
    every: int = 0
    held_out: bool = False

    @classmethod
    def of(cls, file: Path, text_field: str | None, stamp: Stamp, documents: Sequence[str]) -> "Shard":
        """Return the shard of a file that was just read, and was as `stamp` says before."""
        return cls(str(file.absolute()), text_field, stamp, len(documents), sum(map(len, documents)))

    def __len__(self) -> int:
        if not self.every:
            return self.documents
        held = (self.first + self.documents) // self.every - self.first // self.every
        return held if self.held_out else self.documents - held

    def __iter__(self) -> Iterator[str]:
        """Yield the documents. Raises `InputError` where the file is no more what it was."""
        file = Path(self.file)
        texts = read_file(file, self.text_field).documents
        if len(texts) != self.documents or Stamp.of(file) != self.stamp:
            raise InputError(f"'{file}' changed while it was read: let nobody write there, and begin again.")
        for number, text in enumerate(texts, self.first + 1):
            if not self.every or (number % self.every == 0) == self.held_out:
                yield text

    @property
    def share(self) -> float:
        """How much of the file is meant, by its documents."""
        return len(self) / max(1, self.documents)


@final
@dataclass(frozen=True)
class Documents(Sequence[str]):
    """The documents of several shards in order; only those of one are in memory at a time."""

    shards: tuple[Shard, ...]

    @classmethod
    def joined(cls, shards: Iterable[Shard]) -> "Documents":
        """Put the shards of whole files behind each other."""
        first, found = 0, []
        for shard in shards:
            found.append(replace(shard, first=first))
            first += shard.documents
        return cls(tuple(found))

    def spread(self, every: int) -> tuple["Documents", "Documents"]:
        """Return what is left where one document in `every` is held out, and what is held out."""
        kept, held = (
            Documents(tuple(replace(shard, every=every, held_out=out) for shard in self.shards))
            for out in (False, True)
        )
        return kept, held

    @property
    def characters(self) -> int:
        """How long the text is, nearly: what is held out of a file is taken to be as long as the rest."""
        return sum(round(shard.share * shard.characters) for shard in self.shards)

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def __iter__(self) -> Iterator[str]:
        for shard in self.shards:
            yield from shard

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        """Return single documents, for a look at them: every call reads files from the start of theirs."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        left = index + len(self) if index < 0 else index
        for shard in self.shards if left >= 0 else ():
            if left < len(shard):
                return next(islice(shard, left, None))
            left -= len(shard)
        raise IndexError(f"document {index} of {len(self)}")
