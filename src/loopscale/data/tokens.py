"""Tokens of a text: encoded into one flat array, and an Arrow file of it that is memory-mapped from then on."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt
from transformers import PreTrainedTokenizerFast

from loopscale.data.encoding import control_tokens, count_controls, encode, end_of_text, pieces, vocabulary_size
from loopscale.errors import InputError

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


def read_tokens(path: Path) -> Tokens:
    """Map an Arrow file of `write_tokens` into memory; nothing is read until it is used."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    ids = reader.get_batch(0).column(0).to_numpy(zero_copy_only=True)
    facts = reader.schema.metadata
    return Tokens(ids, int(facts[b"text_bytes"]), path, json.loads(facts[b"spelled"]))


def write_tokens(path: Path, tokens: Tokens) -> None:
    """Write an Arrow file that `read_tokens` maps."""
    # one record batch, so that the mapped column is one array
    column = pa.array(tokens.ids)
    facts = {"text_bytes": str(tokens.text_bytes), "spelled": json.dumps(tokens.spelled)}
    schema = pa.schema([("ids", column.type)], metadata=facts)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))


def encode_documents(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerFast, advance: Callable[[int], None] = lambda n: None
) -> Tokens:
    """Return the tokens of documents, one after the other; `advance` hears how many characters were encoded."""
    dtype = np.min_scalar_type(max(vocabulary_size(tokenizer) - 1, 0))
    eos, controls = end_of_text(tokenizer), control_tokens(tokenizer)
    parts = [np.empty(0, dtype)]
    spelled: Counter[str] = Counter()
    text_bytes = 0
    stream = pieces_of(documents, eos is not None)
    while chunk := list(islice(stream, PIECES_AT_ONCE)):
        for ids, (text, ends) in zip(encode(tokenizer, [text for text, _ in chunk]), chunk, strict=True):
            if controls and not controls.keys().isdisjoint(ids):
                spelled += count_controls(ids, controls)
            parts.append(np.array([*ids, eos] if ends else ids, dtype=dtype))
            text_bytes += len(text.encode())
            advance(len(text))
    return Tokens(np.concatenate(parts), text_bytes, spelled=dict(spelled))


def pieces_of(documents: Iterable[str], has_eos: bool) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of all documents, and with each whether the end-of-text id follows it."""
    for document in documents:
        parts = list(pieces(document if has_eos or document.endswith("\n") else f"{document}\n"))
        yield from ((part, has_eos and i == len(parts)) for i, part in enumerate(parts, 1))
