"""Loading of data by names, for training, audit and evaluation alike."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from transformers import PreTrainedTokenizerFast

from loopscale.data.corpora import CorpusId, Split, load_corpus, tell
from loopscale.data.encoding import vocabulary_size
from loopscale.data.streaming import StreamedWindows, stream_of
from loopscale.data.token_cache import tokenize
from loopscale.data.tokenization import FitOn, load_tokenizer, require_vocabulary
from loopscale.data.tokens import Tokens
from loopscale.data.windows import Windows

LOOKED_AT = 1_000_000
MUCH_UNKNOWN = 0.5


@final
@dataclass(frozen=True)
class Data:
    """A corpus in windows: what to train on, what to measure on, and what the ids mean.

    `notes` say what was guessed and left out on the way, a sentence each.
    """

    train: Windows | StreamedWindows
    valid: Windows
    tokenizer: PreTrainedTokenizerFast
    corpus: CorpusId
    notes: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding needs for the tokenizer's ids."""
        return vocabulary_size(self.tokenizer)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of validation text per token."""
        return self.valid.tokens.bytes_per_token

    def require_vocabulary(self, vocab_size: int) -> None:
        """Raise an InputError if a model of `vocab_size` cannot read this text."""
        if isinstance(self.train, StreamedWindows):
            require_vocabulary(self.tokenizer, vocab_size)
        else:
            self.train.tokens.require_vocabulary(vocab_size)
        self.valid.tokens.require_vocabulary(vocab_size)


def load_data(
    corpus: str,
    tokenizer: str | PreTrainedTokenizerFast,
    *,
    sequence_length: int,
    vocab_size: int | None = None,
    stride: int | None = None,
    cache_dir: Path | None = None,
    fit_on: FitOn = "train",
    text_field: str | None = None,
    quiet: bool = False,
) -> Data:
    """Return the windows of a corpus under a tokenizer; the second call for the same text is quick.

    Validation windows do not overlap, so that each token is predicted once.

    Args:
        corpus: a name or path, see `load_corpus`.
        tokenizer: a name or folder, see `load_tokenizer`, or a tokenizer at hand.
        sequence_length: tokens the model reads in a row; rows have one more.
        vocab_size: rows of the model's embedding; `words` is fitted to it, no other tokenizer may exceed it.
        stride: tokens from one training window to the next; None is `sequence_length`.
        cache_dir: where tokens and fitted vocabularies are kept; None is the user's cache folder.
        fit_on: the splits that `words` is fitted on.
        text_field: the field or column of rows that holds the text; None finds it, see `load_corpus`.
        quiet: log nothing of what stands in `notes`.

    Raises:
        InputError: anything wrong with the corpus, the tokenizer or the lengths, in one sentence.
    """
    text = load_corpus(corpus, text_field, quiet=quiet, cache_dir=cache_dir)
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer, text, vocab_size=vocab_size, fit_on=fit_on, cache_dir=cache_dir)
    elif vocab_size is not None:
        require_vocabulary(tokenizer, vocab_size)

    def windows(split: Split, stride: int) -> Windows:
        label = f"the {split} split of corpus '{text.id.name}'"
        return Windows(tokenize(text, tokenizer, split, cache_dir), sequence_length, stride, label)

    train, valid = windows("train", sequence_length if stride is None else stride), windows("valid", sequence_length)
    notes = token_notes(tokenizer, train.tokens, valid.tokens)
    if not quiet:
        tell(text.id.name, notes)
    return Data(train, valid, tokenizer, text.id, (*text.notes, *notes))


def load_stream(
    corpus: str,
    tokenizer: str,
    *,
    sequence_length: int,
    vocab_size: int | None = None,
    stride: int | None = None,
    text_field: str | None = None,
    rank: int = 0,
    processes: int = 1,
    quiet: bool = False,
) -> Data:
    """Return the same of a text that is read while it is trained on: one process's share, and what is held out.

    Nothing but the held-out tokens is kept on disk. `corpus` is a folder or file here, or a data set of the hub, see
    `stream_of`; further arguments are those of `load_data` and `StreamedWindows`.

    Raises:
        InputError: anything wrong with the corpus, the tokenizer or the lengths, in one sentence.
    """
    stream = stream_of(corpus, text_field)
    held = stream.held_out()
    known = load_tokenizer(tokenizer, held, vocab_size=vocab_size)
    step = sequence_length if stride is None else stride
    train = StreamedWindows(stream, known, sequence_length, step, rank, processes)
    label = f"what is held out of corpus '{stream.id.name}'"
    valid = Windows(tokenize(held, known, "valid"), sequence_length, sequence_length, label)
    notes = (*held.notes, *token_notes(known, valid.tokens))
    if not quiet:
        tell(held.id.name, notes)
    return Data(train, valid, known, held.id, notes)


def token_notes(tokenizer: PreTrainedTokenizerFast, *parts: Tokens) -> list[str]:
    """Return what to say where a tokenizer does not fit the text: much is unknown to it, or turned special.

    A few tokenizers make a special token of text that spells it. What is unknown is counted in the first tokens.
    """
    unknown = [part.ids[:LOOKED_AT] == tokenizer.unk_token_id for part in parts if tokenizer.unk_token_id is not None]
    share = sum(map(np.count_nonzero, unknown)) / max(1, sum(map(len, unknown)))
    notes = [f"{share:.0%} of its tokens are {tokenizer.unk_token}: this tokenizer does not know most of such a text."]
    counts = sum((Counter(part.spelled) for part in parts), Counter[str]())
    return (notes if share > MUCH_UNKNOWN else []) + [
        f"the text spells {token}, and this tokenizer makes its special token of it ({count:,} times)."
        for token, count in counts.most_common()
    ]
