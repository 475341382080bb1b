"""Encoding of text as ids, the same way for training text and for prompts.

A text stays text: what spells a special token (`<|endoftext|>`, `<s>`) is encoded as the characters it has, and no
special token is added. Where documents end is for `tokenize` to mark.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from loopscale.errors import InputError

PIECE_CHARACTERS = 16_384
BYTES = 256
# where a long text may be cut, the better places first; `bytes` and `words` see no difference at any of them
_CUTS = re.compile(r"\n(?=\S)"), re.compile(r"\s(?=\S)"), re.compile(r"[^\w\s]")


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text; raises `InputError` where the tokenizer fails on one."""
    try:
        encoded = tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
    except BaseException as error:  # bare exceptions and panics of the library
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise InputError(f"the tokenizer cannot encode the text ({reason}): choose or mend another one.") from error
    return [list(ids) for ids in encoded["input_ids"]]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the ids of a text to go on from, as training text was encoded: no beginning or end is added.

    Raises `InputError` for a prompt that is empty, is not text, or makes no token.
    """
    if any("\ud800" <= c <= "\udfff" for c in prompt):
        raise InputError("the prompt is not UTF-8 text: give it in UTF-8.")
    ids = [i for part in encode(tokenizer, list(pieces(prompt))) for i in part] if prompt else []
    if not ids:
        raise InputError("the prompt is empty, or the tokenizer makes no token of it: give it some text.")
    return ids


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the rows that an embedding needs: the largest id and one, for ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id that follows every document of a training text; None where a newline does.

    Bytes have no id to spare: their end is the newline, and the NUL that they name to programs which demand an end of
    text follows none.
    """
    return None if _is_bytes(tokenizer) else tokenizer.eos_token_id


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the tokens that no text should turn into, by id: all special ones but the unknown, and none of bytes."""
    if _is_bytes(tokenizer):
        return {}
    tokens = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokens |= {i: token for token in tokenizer.all_special_tokens if (i := _id(tokenizer, token)) is not None}
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        tokens.pop(tokenizer.unk_token_id, None)
    return tokens


def count_controls(ids: Iterable[int], controls: dict[int, str]) -> Counter[str]:
    """Return how often each control token stands among the ids of a text."""
    return Counter(controls[i] for i in ids if i in controls)


def pieces(text: str) -> Iterator[str]:
    """Cut a long text into pieces of about `PIECE_CHARACTERS`, at line starts or, failing those, at words or symbols.

    `bytes` and `words` give the same ids as on the whole text, unless a single word is longer than two pieces.
    A tokenizer whose tokens cross a line start (or that marks the beginning of a text) may differ by a token or two at
    each cut.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        least, most = start + PIECE_CHARACTERS, start + 2 * PIECE_CHARACTERS
        found = next((cut for pattern in _CUTS if (cut := pattern.search(text, least, most))), None)
        end = found.end() if found else most
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _is_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the vocabulary is the bytes, each by one character."""
    return set(map(len, tokenizer.get_vocab())) == {1} and vocabulary_size(tokenizer) == BYTES


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Return a token's own id, None for one that is not in the vocabulary."""
    return tokenizer.get_vocab().get(token)
