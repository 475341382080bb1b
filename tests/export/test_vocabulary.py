"""Tokenizers that llama.cpp would not follow are refused, and named."""

import json

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from loopscale import InputError
from loopscale.data import words_tokenizer
from loopscale.export.pretokenizer import NAMES, name_of
from loopscale.export.vocabulary import UNUSED, vocabulary_of
from tests.export.byte_level import KINDS, backend, bpe, byte_tokenizer, split

TEXT = "some text to cut, 12 times"


def changed(**parts):
    """Return a GPT-2 tokenizer with parts of its backend replaced."""
    tokenizer = backend("gpt-2", TEXT)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def with_model(**fields):
    rules = json.loads(backend("gpt-2", TEXT).to_str())
    rules["model"] |= fields
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)), eos_token="<|endoftext|>")


def with_token(**fields):
    tokenizer = bpe("gpt-2", TEXT)
    tokenizer.add_tokens([AddedToken("<mask>", **fields)])
    return tokenizer


def missing_bytes():
    tokenizer = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


REFUSED = {
    "a WordLevel model": lambda: words_tokenizer(["<unk>", "a"]),
    "a Unigram model": lambda: PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram())),
    "byte_fallback=True": lambda: with_model(byte_fallback=True),
    "end_of_word_suffix='</w>'": lambda: with_model(end_of_word_suffix="</w>"),
    "a Lowercase normalizer": lambda: changed(normalizer=normalizers.Lowercase()),
    "a Fuse decoder": lambda: changed(decoder=decoders.Fuse()),
    "a pre-tokenizer it does not know": lambda: changed(pre_tokenizer=split(r"\w+|\W+")),
    "it does not know.*add_prefix_space": lambda: changed(
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)
    ),
    "it does not know.*Whitespace": lambda: changed(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    ),
    "it does not know.*Removed": lambda: changed(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    ),
    "bytes that become <unk>": missing_bytes,
    "the token <mask> with lstrip": lambda: with_token(lstrip=True),
    "the token <mask> with single_word": lambda: with_token(single_word=True),
    "a template that makes": lambda: changed(
        post_processor=processors.TemplateProcessing(single="$A <|begin|>", special_tokens=[("<|begin|>", 1)])
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_llama_cpp_would_read_differently_is_refused_and_named(problem):
    with pytest.raises(InputError, match=f"(?s)would not read text as this tokenizer does, which has .*{problem}"):
        vocabulary_of(REFUSED[problem](), 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_cut_has_its_name(kind):
    assert vocabulary_of(bpe(kind, TEXT), 1000).pre == kind


def test_every_name_is_reached_by_a_tokenizer_that_is_tested():
    assert set(NAMES.values()) == set(KINDS)


def test_without_merges_it_does_not_matter_where_a_text_is_cut():
    assert vocabulary_of(byte_tokenizer(), 256).pre == "gpt-2"
    assert name_of(None, ignore_merges=False, has_merges=False) is None


def test_composed_characters_are_left_to_the_user(caplog):
    vocabulary_of(changed(normalizer=normalizers.NFC()), 1000)
    assert "llama.cpp does not: give it composed text" in caplog.text


def test_special_tokens_that_no_text_spells_are_hidden():
    tokenizer = bpe("gpt-2", TEXT, split_special_tokens=True)
    vocabulary = vocabulary_of(tokenizer, len(tokenizer))
    assert "<|endoftext|>" not in vocabulary.tokens
    assert vocabulary.kinds[tokenizer.eos_token_id] == UNUSED
    assert vocabulary.ends == {"eos": tokenizer.eos_token_id}


def test_an_end_is_found_where_the_tokenizer_has_none():
    """llama.cpp would end a text at id 11 if it were told of no end."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend("gpt-2", TEXT))
    size = len(tokenizer)
    assert vocabulary_of(tokenizer, size + 1).ends == {"eos": size}
    assert vocabulary_of(tokenizer, size).ends == {
        "eos": tokenizer.convert_tokens_to_ids("ÿ")
    }  # no UTF-8 text holds it


def test_sizes_and_ends():
    tokenizer = bpe("gpt-2", TEXT)
    with pytest.raises(InputError, match="tokens, and the model 9"):
        vocabulary_of(tokenizer, 9)
    with pytest.raises(InputError, match="4 tokens that end a text"):
        vocabulary_of(tokenizer, 1000, [5, 6, 7])
    assert vocabulary_of(tokenizer, 1000, [5]).ends == {"eos": tokenizer.eos_token_id, "eot": 5}
    plain = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    with pytest.raises(InputError, match=r"no token that ends a text.*tokenizer\.eos_token"):
        vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=plain), 2)
