"""Tokens of a split: tokenised once into an Arrow file, memory-mapped from then on."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt
from transformers import PreTrainedTokenizerFast

from loopscale.data.corpora import Corpus, Split
from loopscale.data.disk_cache import build_once, default_cache_dir, digest, remove
from loopscale.data.encoding import control_tokens, count_controls, encode, end_of_text, pieces, vocabulary_size
from loopscale.data.tokenization import fingerprint
from loopscale.display import progress_bar
from loopscale.errors import InputError

FORMAT = 2  # raise it when the same text and tokenizer should give other ids
PIECES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token ids of a text, in order, and how many UTF-8 bytes the text has."""

    ids: UInt[np.ndarray, " tokens"]
    text_bytes: int
    path: Path | None = None  # the Arrow file that `ids` is mapped from
    spelled: Mapping[str, int] = field(default_factory=dict)  # special tokens that the text itself turned into

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token: bits per byte = cross-entropy in nats / ln 2 / this."""
        return self.text_bytes / len(self.ids)

    def require_vocabulary(self, vocab_size: int) -> None:
        """Raise an InputError if an id has no row in an embedding of `vocab_size` rows."""
        if (largest := int(self.ids.max())) >= vocab_size:
            raise InputError(
                f"the text has token id {largest:,}, but the model's vocabulary has only {vocab_size:,}: "
                "use the tokenizer that the model was trained with."
            )

    def __reduce__(self) -> tuple[Callable[..., "Tokens"], tuple[Any, ...]]:
        """Pickle the path in place of the ids: a data worker maps the file again."""
        return (read_tokens, (self.path,)) if self.path else (Tokens, (self.ids, self.text_bytes))


def tokenize(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, split: Split, cache_dir: Path | None = None) -> Tokens:
    """Return the tokens of a split, from the cache if the same text met the same tokenizer before.

    The stream is document after document: each followed by the tokenizer's end-of-text id, or, where it has
    none, by a newline if it does not end in one. No other special token is added.

    Args:
        corpus: where the text comes from; its SHA-256 is half of the cache's key.
        tokenizer: its fingerprint is the other half.
        split: `train` or `valid`.
        cache_dir: where the Arrow files lie; None is the user's cache folder.

    Raises:
        InputError: the tokenizer makes no token of the text, or the cache cannot be written.
    """
    key = digest(FORMAT, corpus.id.sha256, fingerprint(tokenizer), split)
    path = (cache_dir or default_cache_dir()) / f"tokens-{key[:32]}.arrow"

    def build(partial: Path) -> None:
        tokens = _encode(corpus.documents(split), tokenizer, split)
        if not len(tokens.ids):
            raise InputError(f"the tokenizer makes no token of the {split} split of corpus '{corpus.id.name}'.")
        _write(partial, tokens)

    build_once(path, build)
    try:
        return read_tokens(path)
    except (pa.ArrowException, OSError, KeyError, ValueError):  # damaged from outside, for example by a failing disk
        remove(path)
        return read_tokens(build_once(path, build))


def read_tokens(path: Path) -> Tokens:
    """Map an Arrow file of `tokenize` into memory; nothing is read until it is used."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    ids = reader.get_batch(0).column(0).to_numpy(zero_copy_only=True)
    facts = reader.schema.metadata
    return Tokens(ids, int(facts[b"text_bytes"]), path, json.loads(facts[b"spelled"]))


def _write(path: Path, tokens: Tokens) -> None:
    # one record batch, so that the mapped column is one array
    column = pa.array(tokens.ids)
    facts = {"text_bytes": str(tokens.text_bytes), "spelled": json.dumps(tokens.spelled)}
    schema = pa.schema([("ids", column.type)], metadata=facts)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))


def _encode(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, split: Split) -> Tokens:
    dtype = np.min_scalar_type(max(vocabulary_size(tokenizer) - 1, 0))
    eos, controls = end_of_text(tokenizer), control_tokens(tokenizer)
    parts: list[np.ndarray] = []
    spelled: Counter[str] = Counter()
    text_bytes = 0
    stream = pieces_of(documents, eos is not None)
    with progress_bar(f"tokenising ({split})", sum(map(len, documents))) as advance:
        while chunk := list(islice(stream, PIECES_AT_ONCE)):
            for ids, (text, ends) in zip(encode(tokenizer, [text for text, _ in chunk]), chunk, strict=True):
                if controls and not controls.keys().isdisjoint(ids):
                    spelled += count_controls(ids, controls)
                parts.append(np.array([*ids, eos] if ends else ids, dtype=dtype))
                text_bytes += len(text.encode())
                advance(len(text))
    return Tokens(np.concatenate(parts), text_bytes, spelled=dict(spelled))


def pieces_of(documents: Sequence[str], has_eos: bool) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of all documents, and with each whether the end-of-text id follows it."""
    for document in documents:
        parts = list(pieces(document if has_eos or document.endswith("\n") else f"{document}\n"))
        yield from ((part, has_eos and i == len(parts)) for i, part in enumerate(parts, 1))
