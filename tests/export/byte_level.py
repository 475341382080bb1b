"""Tokenizers of the kinds that llama.cpp knows, trained on a line."""

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from loopscale.data import Corpus, load_tokenizer
from loopscale.export import pretokenizer


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# llama.cpp's name -> how such a tokenizer cuts, and whether whole pieces are tokens before merges are
KINDS = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        False,
    ),
    "llama-bpe": (split(pretokenizer.LLAMA3), True),
    "smaug-bpe": (split(pretokenizer.LLAMA3), False),
    "qwen2": (split(pretokenizer.QWEN2), False),
}


def backend(kind: str, text: str) -> Tokenizer:
    cut, whole = KINDS[kind]
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|begin|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 3, trainer)
    return tokenizer


def bpe(kind: str, text: str, **fields: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend(kind, text), clean_up_tokenization_spaces=False, eos_token="<|endoftext|>", **fields
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer("bytes", Corpus.of("texts", ["a"], ["a"]))
