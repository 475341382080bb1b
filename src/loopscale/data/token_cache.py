"""Cache of tokens: a text is tokenised once under a tokenizer, whoever asks for it and however many at a time."""

from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from loopscale.data.corpora import Corpus, Split, characters
from loopscale.data.disk_cache import build_once, default_cache_dir, digest, remove
from loopscale.data.sharded import Documents
from loopscale.data.sharded.token_parts import write_in_parts
from loopscale.data.tokenization import fingerprint
from loopscale.data.tokens import Tokens, encode_documents, read_tokens, write_tokens
from loopscale.display import progress_bar
from loopscale.errors import InputError

FORMAT = 2  # raise it when the same text and tokenizer should give other ids


def tokenize(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    split: Split,
    cache_dir: Path | None = None,
    processes: int | None = None,
) -> Tokens:
    """Return the tokens of a split, from the cache if the same text met the same tokenizer before.

    The stream is document after document: each followed by the tokenizer's end-of-text id, or, where it has
    none, by a newline if it does not end in one. No other special token is added.

    Args:
        corpus: where the text comes from; its SHA-256 is half of the cache's key.
        tokenizer: its fingerprint is the other half.
        split: `train` or `valid`.
        cache_dir: where the Arrow files lie; None is the user's cache folder.
        processes: that share the files of a large folder; None is as many as there are cores, if memory allows.

    Raises:
        InputError: the tokenizer makes no token of the text, or the cache cannot be written.
    """
    key = digest(FORMAT, corpus.id.sha256, fingerprint(tokenizer), split)
    path = (cache_dir or default_cache_dir()) / f"tokens-{key[:32]}.arrow"
    documents, what = corpus.documents(split), f"tokenising ({split})"

    def build(partial: Path) -> None:
        if isinstance(documents, Documents):
            made = write_in_parts(partial, documents, tokenizer, path.with_suffix(".parts"), what, processes)
        else:
            with progress_bar(what, characters(documents)) as advance:
                tokens = encode_documents(documents, tokenizer, advance)
            made = len(tokens.ids)
            write_tokens(partial, tokens)
        if not made:
            raise InputError(f"the tokenizer makes no token of the {split} split of corpus '{corpus.id.name}'.")

    build_once(path, build)
    try:
        return read_tokens(path)
    except (pa.ArrowException, OSError, KeyError, ValueError):  # damaged from outside, for example by a failing disk
        remove(path)
        return read_tokens(build_once(path, build))
