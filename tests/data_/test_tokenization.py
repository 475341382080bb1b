import inspect
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from loopscale.data import Corpus, hub, load_tokenizer, require_vocabulary
from loopscale.data.tokenization import WORDS_PATTERN_ONIGURUMA, fingerprint
from loopscale.errors import InputError

PAPER = r"\s+|[A-Za-z0-9_]+|[^\w\s]"
CORPUS = Corpus.of("tiny", ["b b b  a a a c c, d!\n\n\tzz zz x", "caf\u00e9 \u2014 <unk> <unk>\n"], ["yy yy yy yy c c"])
BYTES = load_tokenizer("bytes", CORPUS)
WORDS_SPLIT = pre_tokenizers.Split(Regex(WORDS_PATTERN_ONIGURUMA), behavior="removed", invert=True)


@pytest.fixture
def words(tmp_path) -> PreTrainedTokenizerFast:
    return load_tokenizer("words", CORPUS, cache_dir=tmp_path)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.text())
def test_bytes_are_the_byte_values_and_decode_exactly(text):
    assert ids(BYTES, text) == list(text.encode())
    assert BYTES.decode(list(text.encode())) == text


def test_bytes_have_256_ids():
    assert len(BYTES) == 256
    assert sorted(BYTES.get_vocab().values()) == list(range(256))


def test_words_are_the_most_frequent_matches_ties_by_token(words):
    # counts in train: ' ' 13, 'a' 'b' 3 each, '<' '>' 'c' 'unk' 'zz' 2 each, the others 1
    assert words.convert_ids_to_tokens(range(len(words))) == [
        "<unk>", " ", "a", "b", "<", ">", "c", "unk", "zz"
    ]  # fmt: skip


def test_words_keep_the_most_frequent_only_and_count_the_unknown(tmp_path):
    small = load_tokenizer("words", CORPUS, vocab_size=3, cache_dir=tmp_path)
    assert small.convert_ids_to_tokens(range(len(small))) == ["<unk>", " ", "a"]


def test_validation_text_enters_the_vocabulary_only_on_request(words, tmp_path):
    leaky = load_tokenizer("words", CORPUS, fit_on="train+valid", cache_dir=tmp_path)
    assert "yy" not in words.get_vocab()
    assert leaky.convert_ids_to_tokens(range(4)) == ["<unk>", " ", "c", "yy"]


def test_every_match_is_a_token_and_letters_beyond_ascii_are_dropped_as_in_the_paper(words):
    vocab = words.get_vocab()
    for text in ("a b  c\n\n", "caf\u00e9 a", "<unk> a_b", "\u6f22\u5b57 zz", "\u00e9", "\x1ca"):
        assert ids(words, text) == [vocab.get(match, 0) for match in re.findall(PAPER, text)], text


def test_words_decode_by_joining(words):
    known = " a b c<unk> zz aa"
    assert words.decode(ids(words, " a b c zz<a>")) == " a b c zz<a>"
    assert words.decode(ids(words, known)) == " a b c<unk> zz <unk>"


def test_the_pattern_of_the_library_finds_the_papers_matches():
    split = WORDS_SPLIT.pre_tokenize_str
    # unassigned code points (Cn) may be letters in the library's newer Unicode
    assigned = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]
    assert [c for c in assigned if [m for m, _ in split(c)] != re.findall(PAPER, c)] == []


@given(st.text(alphabet=st.sampled_from("ab_9 \t\n\r\x1c\x85\u00a0\u2028.,<\u00e9\u0301\u00b2\u6f22\U0001f600")))
def test_the_pattern_agrees_on_texts(text):
    matches = WORDS_SPLIT.pre_tokenize_str(text)
    assert [match for match, _ in matches] == re.findall(PAPER, text)


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_saved_and_loaded_gives_identical_ids(name, tmp_path):
    tokenizer = load_tokenizer(name, CORPUS, cache_dir=tmp_path / "cache")
    folder = tmp_path / "saved"
    tokenizer.save_pretrained(folder)
    # beside a model's config, as in a checkpoint
    (folder / "config.json").write_text(json.dumps({"model_type": "loopscale"}))
    text = "a b  caf\u00e9 <unk> \u2014 zz\n"
    for loaded in (AutoTokenizer.from_pretrained(folder), load_tokenizer(str(folder), CORPUS)):
        assert ids(loaded, text) == ids(tokenizer, text)
        assert loaded.decode(ids(tokenizer, text)) == tokenizer.decode(ids(tokenizer, text))
        assert fingerprint(loaded) == fingerprint(tokenizer)


def test_the_fingerprint_is_of_the_tokenizer_not_of_its_last_call(words):
    before = fingerprint(words)
    words.pad_token = "<unk>"
    words(["a", "a b"], padding=True, truncation=True, max_length=1)
    assert fingerprint(words) == before
    assert before != fingerprint(BYTES)


def test_any_other_saved_tokenizer(tmp_path):
    backend = Tokenizer(models.WordLevel({"[U]": 0, "hello": 1}, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[U]").save_pretrained(tmp_path)
    assert ids(load_tokenizer(str(tmp_path), CORPUS, vocab_size=2), "hello there") == [1, 0]


def test_vocabulary_too_small_for_the_tokenizer():
    with pytest.raises(InputError, match=r"vocabulary of 100 is too small .* 256 ids: set vocab_size to 256 or more"):
        load_tokenizer("bytes", CORPUS, vocab_size=100)
    require_vocabulary(BYTES, 256)


@pytest.mark.parametrize("vocab_size", [1, 0, -5])
def test_words_need_room(vocab_size, tmp_path):
    with pytest.raises(InputError, match="vocab_size of at least 2"):
        load_tokenizer("words", CORPUS, vocab_size=vocab_size, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["wrods", "no such/thing at all", ""])
def test_a_tokenizer_that_is_nowhere(name, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "trouble", lambda: "no network")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"unknown tokenizer '{name}'.*no network"):
        load_tokenizer(name, CORPUS)


def test_a_folder_without_a_readable_tokenizer(tmp_path):
    with pytest.raises(InputError, match="holds no readable tokenizer"):
        load_tokenizer(str(tmp_path), CORPUS)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(InputError, match="holds no readable tokenizer"):
        load_tokenizer(str(tmp_path), CORPUS)


def test_fit_on_is_one_of_two():
    with pytest.raises(InputError, match="did you mean 'train'"):
        inspect.unwrap(load_tokenizer)("words", CORPUS, fit_on="trian")  # past the type check of the tests
