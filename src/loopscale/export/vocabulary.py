"""Vocabulary of a GGUF file: tokens, merges and rules under which llama.cpp cuts a text as the tokenizer does.

What it would cut differently is refused by name: the model would be given other tokens than it was trained on.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from loopscale.errors import InputError
from loopscale.export.pretokenizer import FAMILIES, name_of

logger = logging.getLogger(__name__)

# llama.cpp's kinds of tokens
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# a byte's printable stand-in in byte-level BPE: those that no UTF-8 text holds
NO_TEXT = tuple("ÿþýüûúùø÷öõÁÀ")
ENDS = ("eos", "eot", "eom")  # the places that llama.cpp has for tokens that end a text


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to read and write text. `ends` maps eos, eot and eom to ids."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    pre: str
    bos: int
    ends: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: Sequence[int] = ()) -> Vocabulary:
    """Return the vocabulary of a byte-level tokenizer, filled up with unused tokens to a model's `vocab_size`.

    `ends` are further ids that end a text. Raises `InputError`, naming what it is, for a tokenizer that llama.cpp would
    not follow, or that has more tokens than the model.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused("no fast version (tokenizer.json)")
    rules: dict[str, Any] = json.loads(backend.to_str())
    if len(tokenizer) > vocab_size:
        raise InputError(f"the tokenizer has {len(tokenizer)} tokens, and the model {vocab_size}.")
    for problem in _problems(tokenizer, rules):
        raise _refused(problem)
    if (rules["normalizer"] or {}).get("type") == "NFC":
        logger.warning("the tokenizer composes characters (NFC) and llama.cpp does not: give it composed text")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in rules["model"]["merges"]]
    tokens, kinds = _tokens(tokenizer, rules, vocab_size)
    adds_bos, adds_eos = _added(tokenizer)
    named = [token for token in (tokenizer.eos_token_id, *ends) if token is not None]
    ending = list(dict.fromkeys(named)) or [_never(tokens, kinds)]
    if len(ending) > len(ENDS):
        raise _refused(f"{len(ending)} tokens that end a text")
    pre = name_of(rules["pre_tokenizer"], bool(rules["model"].get("ignore_merges")), bool(merges))
    assert pre is not None  # _problems saw to it
    return Vocabulary(
        tokens,
        kinds,
        merges or [f"{NO_TEXT[0]} {NO_TEXT[1]}"],  # llama.cpp wants at least one
        pre,
        ending[0] if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
        dict(zip(ENDS, ending, strict=False)),
        adds_bos,
        adds_eos,
        tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def _refused(problem: str) -> InputError:
    return InputError(
        f"llama.cpp would not read text as this tokenizer does, which has {problem}: use `bytes` or a byte-level BPE "
        f"tokenizer that cuts text like those of {FAMILIES}."
    )


def _problems(tokenizer: PreTrainedTokenizerBase, rules: Mapping[str, Any]) -> Iterator[str]:
    """Yield, in words, what llama.cpp does not follow."""
    model, normalizer, decoder = rules["model"], rules["normalizer"], rules["decoder"] or {}
    if model["type"] != "BPE":
        yield f"a {model['type']} model"
        return
    for option in ("byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            yield f"{option}={model[option]!r}"
    if normalizer is not None and normalizer["type"] != "NFC":
        yield f"a {normalizer['type']} normalizer"
    if decoder.get("type") != "ByteLevel":
        yield f"a {decoder.get('type', 'missing')} decoder"
    if name_of(rules["pre_tokenizer"], bool(model.get("ignore_merges")), bool(model["merges"])) is None:
        yield f"a pre-tokenizer it does not know ({_in_short(rules['pre_tokenizer'])})"
    if model.get("unk_token") and not _all_bytes() <= model["vocab"].keys():
        yield f"bytes that become {model['unk_token']}"
    for added in rules["added_tokens"]:
        for option in ("lstrip", "rstrip", "single_word"):
            if added.get(option):
                yield f"the token {added['content']} with {option}"


def _in_short(pre_tokenizer: Mapping[str, Any] | None) -> str:
    text = json.dumps(pre_tokenizer, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _all_bytes() -> set[str]:
    """Return the 256 stand-ins of byte-level BPE."""
    from tokenizers import pre_tokenizers

    return set(pre_tokenizers.ByteLevel.alphabet())


def _tokens(
    tokenizer: PreTrainedTokenizerBase, rules: Mapping[str, Any], vocab_size: int
) -> tuple[list[str], list[int]]:
    """Return every id's text and kind; ids without a token, or with one that no text spells, are unused."""
    tokens, kinds = [_unused(i) for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in rules["model"]["vocab"].items():
        tokens[i], kinds[i] = token, NORMAL
    for added in rules["added_tokens"]:
        i = added["id"]
        if not (added["special"] and getattr(tokenizer, "split_special_tokens", False)):
            tokens[i], kinds[i] = added["content"], CONTROL if added["special"] else USER_DEFINED
        elif added["content"] not in _all_bytes():  # its letters are text like any other: llama.cpp must not find it
            tokens[i], kinds[i] = _unused(i), UNUSED
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise _refused(f"two tokens {twice!r}")
    return tokens, kinds


def _unused(i: int) -> str:
    return f"<|loopscale_unused_{i}|>"


def _never(tokens: Sequence[str], kinds: Sequence[int]) -> int:
    """Return a token that no text holds, to end a text with: llama.cpp takes id 11 where it is told of none."""
    if UNUSED in kinds:
        return kinds.index(UNUSED)
    for token in NO_TEXT:
        if token in tokens:
            return tokens.index(token)
    raise InputError(
        "the tokenizer has no token that ends a text, and llama.cpp needs one: name one of its special tokens by "
        "tokenizer.eos_token and save it beside the model."
    )


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Return whether a text is given a token at its beginning, and one at its end, when it is read."""
    bare, whole = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    for before in (False, True):
        for after in (False, True):
            start, end = [tokenizer.bos_token_id] * before, [tokenizer.eos_token_id] * after
            if whole == [*start, *bare, *end]:
                return before, after
    raise _refused(f"a template that makes {whole} of {bare}")
