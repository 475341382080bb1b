"""Parts of a text's tokens: each of a few shards, written apart, so that processes share the work.

A part that is there is not made again: a tokeniser that was killed goes on where it was. Put together they are one
Arrow file, the same as if one process had read everything.
"""

import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from loopscale.data.disk_cache import build_once, digest, remove
from loopscale.data.sharded.documents import Documents, Shard
from loopscale.data.sharded.token_processes import processes_for, write_parts
from loopscale.data.tokens import Tokens, encode_documents, read_tokens, write_tokens
from loopscale.display import progress_bar

PART = 16 * 2**20  # bytes of files that make a part, at least


def write_in_parts(
    path: Path,
    documents: Documents,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    what: str,
    processes: int | None = None,
) -> int:
    """Write the tokens of documents that are not in memory, and return how many there are.

    Args:
        path: the Arrow file.
        documents: the text.
        tokenizer: of the text.
        folder: where the parts lie until then; those of a stopped tokeniser are taken up.
        what: the work's name, for its progress.
        processes: that share the work; None is as many as there are cores, if memory allows.

    Raises `InputError` for a text that cannot be read, or changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f"{digest(*map(repr, shards))[:32]}.arrow": shards for shards in _grouped(documents.shards)}
    missing = {part: shards for part, shards in parts.items() if not part.exists()}
    with progress_bar(what, documents.characters) as advance:
        advance(documents.characters - sum(map(_characters, missing.values())))
        width = processes_for(missing, processes)
        if width > 1:
            write_parts(missing, tokenizer, width, lambda part: advance(_characters(parts[part])))
        else:
            for part, shards in missing.items():
                write_part(part, shards, tokenizer)
                advance(_characters(shards))
    made = _join(path, list(parts))
    remove(folder)
    return made


def write_part(part: Path, shards: Sequence[Shard], tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokens of a few shards, whole or not at all."""
    build_once(part, lambda partial: write_tokens(partial, encode_documents(Documents(tuple(shards)), tokenizer)))


def _grouped(shards: Sequence[Shard]) -> list[tuple[Shard, ...]]:
    """Return shards that follow each other, together as large as a part."""
    groups: list[list[Shard]] = [[]]
    for shard in shards:
        if sum(other.stamp.size for other in groups[-1]) >= PART:
            groups.append([])
        groups[-1].append(shard)
    return [tuple(group) for group in groups]


def _characters(shards: Sequence[Shard]) -> int:
    return Documents(tuple(shards)).characters


def _join(path: Path, parts: Sequence[Path]) -> int:
    """Write an Arrow file of all parts, and return how many tokens it has; of none, no file.

    Arrow writes arrays that are whole: pages of zeros, which take no memory, stand for it until ids replace them.
    """
    count, text_bytes, spelled, dtype = 0, 0, Counter[str](), np.dtype(np.uint8)
    for part in parts:
        tokens = read_tokens(part)
        count, text_bytes, dtype = count + len(tokens.ids), text_bytes + tokens.text_bytes, tokens.ids.dtype
        spelled.update(tokens.spelled)
    if not count:
        return 0
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared ones would be memory
    with mmap.mmap(-1, count * dtype.itemsize, flags=private, prot=mmap.PROT_READ) as nothing:
        zeros = np.frombuffer(nothing, dtype)
        write_tokens(path, Tokens(zeros, text_bytes, spelled=dict(spelled)))
        del zeros
    with path.open("r+b") as file:
        file.seek(_start_of_ids(path))
        for part in parts:
            read_tokens(part).ids.tofile(file)
    return count


def _start_of_ids(path: Path) -> int:
    """Return the place of the ids in an Arrow file of tokens."""
    whole = pa.memory_map(str(path))
    ids = pa.ipc.open_file(whole).get_batch(0).column(0).buffers()[1]
    whole.seek(0)
    return int(ids.address - whole.read_buffer().address)
