r"""Tokenizers: `bytes`, `words` (the paper's) and any fast tokenizer of Hugging Face.

The paper (arXiv 2606.24898) reads text as the matches of ``\s+|[A-Za-z0-9_]+|[^\w\s]``: runs of white space,
ASCII words, single symbols. A letter or digit outside ASCII is in none of the three and is dropped, as in the
paper's code; `words` therefore suits English, and its bits per byte compare only with other runs of `words`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from loopscale.data import hub
from loopscale.data.corpora import Corpus, characters
from loopscale.data.disk_cache import ELSEWHERE, build_once, default_cache_dir, digest
from loopscale.data.encoding import BYTES, pieces, vocabulary_size
from loopscale.data.readers import existing
from loopscale.display import progress_bar
from loopscale.errors import InputError, unknown

FitOn = Literal["train", "train+valid"]

BYTES_PADDING, BYTES_END = 0xFF, 0x00  # a byte that no UTF-8 text has, and one that no text is trained to end in
WORDS_VOCAB_SIZE = 20_000
WORDS_MIN_COUNT = 2
WORDS_UNKNOWN = "<unk>"
WORDS_PATTERN = re.compile(r"\s+|[A-Za-z0-9_]+|[^\w\s]")
# The same matches for the tokenizers library, whose \w and \s differ from Python's (marks, \x1c-\x1f).
WORDS_PATTERN_ONIGURUMA = r"[\s\x1c-\x1f]+|[A-Za-z0-9_]+|[^\p{L}\p{N}_\s\x1c-\x1f]"


def load_tokenizer(
    name: str,
    corpus: Corpus,
    *,
    vocab_size: int | None = None,
    fit_on: FitOn = "train",
    cache_dir: Path | None = None,
) -> PreTrainedTokenizerFast:
    """Return a tokenizer by name.

    `bytes`: 256 ids, which are the byte values of the UTF-8 text; decoding is exact.
    `words`: the paper's vocabulary, the `vocab_size` (20,000) most frequent matches that occur at least
    twice, ties by token, `<unk>` counted among them as id 0. Decoding joins the tokens. It is fitted on the
    train split; `fit_on="train+valid"` is the paper's own choice, which lets validation text into the
    vocabulary.
    Any other name: a folder with a saved tokenizer, or one of the hub.

    Args:
        name: `bytes`, `words`, a folder or a name on the hub.
        corpus: what `words` is fitted on.
        vocab_size: how many ids the model has: the size to fit `words` to, a limit for the others.
        fit_on: the splits that `words` is fitted on.
        cache_dir: where a fitted vocabulary is kept; None is the user's cache folder.

    Raises:
        InputError: unknown name, no network, no fast version, or more ids than `vocab_size`.
    """
    if fit_on not in get_args(FitOn):
        raise unknown("choice of fit_on", fit_on, get_args(FitOn))
    if name == "words":
        return _words(
            corpus,
            WORDS_VOCAB_SIZE if vocab_size is None else vocab_size,
            fit_on,
            cache_dir or default_cache_dir(),
        )
    tokenizer = _bytes() if name == "bytes" else _pretrained(name)
    if vocab_size is not None:
        require_vocabulary(tokenizer, vocab_size)
    return tokenizer


def words_tokenizer(vocabulary: Sequence[str], pad_token: str | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the paper's pattern with this vocabulary, whose ids are the places in it.

    `<unk>` must be among the words, and so must the `pad_token` if there is one.
    """
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=WORDS_UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS_PATTERN_ONIGURUMA), behavior="removed", invert=True)
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=WORDS_UNKNOWN,
        pad_token=pad_token,
        split_special_tokens=True,  # "<unk>" written in a text is three tokens, as for the paper's pattern
        clean_up_tokenization_spaces=False,
    )


def require_vocabulary(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
    """Raise an InputError if the tokenizer has more ids than a model of `vocab_size` can embed."""
    if (needed := vocabulary_size(tokenizer)) > vocab_size:
        raise InputError(
            f"a vocabulary of {vocab_size:,} is too small for the tokenizer, which has {needed:,} "
            f"ids: set vocab_size to {needed} or more, or choose a smaller tokenizer."
        )


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a hex digest of what decides the ids of a text: vocabulary, rules and the end-of-text id."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()  # both are settings of the last call, not of the tokenizer
    backend.no_padding()
    return digest(backend.to_str(), tokenizer.eos_token_id)


def _bytes() -> PreTrainedTokenizerFast:
    # Byte-level BPE writes each byte as a printable character: itself, or one from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    vocab = {chr(byte if byte in printable else next(stand_ins)): byte for byte in range(BYTES)}
    names = list(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=names[BYTES_PADDING],
        eos_token=names[BYTES_END],  # for programs that demand one
        padding_side="left",
        split_special_tokens=True,  # the letters that stand for those bytes are text like any other
        clean_up_tokenization_spaces=False,
    )


def _words(corpus: Corpus, vocab_size: int, fit_on: FitOn, cache_dir: Path) -> PreTrainedTokenizerFast:
    if vocab_size < 2:
        raise InputError(f"a vocabulary of words needs a vocab_size of at least 2, not {vocab_size}.")
    key = digest(corpus.id.sha256, vocab_size, fit_on, WORDS_MIN_COUNT, WORDS_PATTERN.pattern, WORDS_PATTERN_ONIGURUMA)

    def build(folder: Path) -> None:
        texts = [corpus.train] if fit_on == "train" else [corpus.train, corpus.valid]
        fitted = _fit_words(texts, vocab_size)
        try:
            fitted.save_pretrained(folder)
        except Exception as error:  # the library raises bare exceptions, also for a full disk
            raise InputError(f"cannot write the cache '{cache_dir}' ({error}): {ELSEWHERE}.") from error

    return AutoTokenizer.from_pretrained(build_once(cache_dir / f"words-{key[:32]}", build))


def _fit_words(texts: Sequence[Sequence[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    counts: Counter[str] = Counter()
    with progress_bar("counting words", sum(map(characters, texts))) as advance:
        for document in chain.from_iterable(texts):
            for piece in pieces(document):
                counts.update(WORDS_PATTERN.findall(piece))
                advance(len(piece))
    frequent = [word for word, count in counts.items() if count >= WORDS_MIN_COUNT]
    frequent.sort(key=lambda word: (-counts[word], word))
    return words_tokenizer([WORDS_UNKNOWN, *frequent[: vocab_size - 1]])


def _pretrained(name: str) -> PreTrainedTokenizerFast:
    path = existing(name)
    if path is None:
        tokenizer = _of_hub(name)
    elif path.is_dir():
        tokenizer = _of_folder(path)
    else:
        return _of_file(path)
    if not tokenizer.is_fast:
        raise InputError(f"tokenizer '{name}' has no fast version (tokenizer.json): choose another one.")
    return tokenizer


def _of_hub(name: str) -> PreTrainedTokenizerFast:
    try:
        return hub.cached_first(lambda offline: _auto(name, local_files_only=offline))
    except hub.NotLoaded as error:
        _refuse_code(name, error.__cause__)
        guess = unknown("tokenizer", name, ("bytes", "words"))
        raise InputError(
            f"{guess} A folder with a saved tokenizer, a tokenizer.json or a name on the Hugging Face hub does too, "
            f"but there is no such file and the hub does not give it ({error})."
        ) from error


def _of_folder(folder: Path) -> PreTrainedTokenizerFast:
    try:
        return _auto(folder, local_files_only=True)
    except Exception as error:  # a broken tokenizer.json raises a bare Exception
        _refuse_code(str(folder), error)
        raise InputError(f"'{folder}' holds no readable tokenizer: save one there with save_pretrained.") from error


def _of_file(file: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a file of the `tokenizers` library, with what lies beside it if that is a saved one."""
    if file.name == "tokenizer.json" and (file.parent / "tokenizer_config.json").exists():
        return _of_folder(file.parent)
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False)
    except Exception as error:
        raise InputError(
            f"'{file}' is not a tokenizer of the tokenizers library (tokenizer.json): name such a file, or the folder "
            "of a saved tokenizer."
        ) from error


def _auto(name: str | Path, local_files_only: bool) -> PreTrainedTokenizerFast:
    """Return what transformers loads; code that comes with a tokenizer is never run, and nobody is asked to."""
    return AutoTokenizer.from_pretrained(name, local_files_only=local_files_only, trust_remote_code=False)


def _refuse_code(name: str, error: BaseException | None) -> None:
    if "trust_remote_code" in str(error):
        raise InputError(
            f"tokenizer '{name}' needs Python code of its own (trust_remote_code), which is not run here: save it as a "
            "fast tokenizer (tokenizer.json) and name that."
        ) from error
