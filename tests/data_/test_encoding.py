"""Text to ids: training text and prompts alike, special tokens spelled out, long lines, ids with gaps."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from loopscale.data import (
    Corpus,
    encode_prompt,
    load_data,
    load_tokenizer,
    require_vocabulary,
    tokenize,
    vocabulary_size,
)
from loopscale.data.encoding import PIECE_CHARACTERS, pieces
from loopscale.errors import InputError

TEXTS = [f"{i} is a number <|endoftext|> and <s>not</s> [PAD] an end" for i in range(60)]


def byte_level(eos: str = "<|endoftext|>", **special: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=[eos, *special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["a number and an end"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, **special)


def words(vocabulary: dict[str, int], **special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[U]", **special)


@pytest.mark.parametrize("special", [{}, {"bos_token": "<s>", "pad_token": "[PAD]"}])
def test_text_that_spells_special_tokens_stays_text(special, tmp_path):
    tokenizer = byte_level(**special)
    tokens = tokenize(Corpus.of("x", TEXTS, TEXTS[:1]), tokenizer, "train", tmp_path)
    ids = tokens.ids.tolist()
    assert ids.count(tokenizer.eos_token_id) == len(TEXTS)
    assert not set(tokenizer.all_special_ids) - {tokenizer.eos_token_id} & set(ids)
    assert tokenizer.decode(ids).split("<|endoftext|>")[0] == TEXTS[0].split("<|endoftext|>")[0]
    assert not tokens.spelled


def test_an_end_of_text_comes_once_from_a_tokenizer_that_adds_its_own(tmp_path):
    tokenizer = byte_level(bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[("<s>", 1), ("<|endoftext|>", 0)]
    )
    ids = tokenize(Corpus.of("x", TEXTS, TEXTS), tokenizer, "train", tmp_path).ids.tolist()
    assert (ids.count(0), ids.count(1)) == (len(TEXTS), 0)
    assert 0 not in encode_prompt(tokenizer, "a number")


def test_a_special_token_that_the_text_turns_into_is_told(tmp_path, caplog):
    tokenizer = words({"[U]": 0, "</s>": 1, "a": 2}, eos_token="</s>")
    file = tmp_path / "a.txt"
    file.write_text("a </s> a\n" * 40)
    tokenizer.save_pretrained(tmp_path / "tok")
    for _ in ("made", "cached"):
        caplog.clear()
        data = load_data(str(file), str(tmp_path / "tok"), sequence_length=2, cache_dir=tmp_path / "cache")
        assert any("</s>" in note and "40 times" in note for note in data.notes)
        assert any("</s>" in record.getMessage() for record in caplog.records)


def test_truncation_saved_with_a_tokenizer_is_not_followed(tmp_path):
    tokenizer = byte_level()
    whole = tokenize(Corpus.of("x", TEXTS, TEXTS), tokenizer, "train", tmp_path).ids.tolist()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.backend_tokenizer.save(str(tmp_path / "mine.json"))
    cut = load_tokenizer(str(tmp_path / "mine.json"), Corpus.of("x", TEXTS, TEXTS))
    cut.eos_token = "<|endoftext|>"
    assert tokenize(Corpus.of("x", TEXTS, TEXTS), cut, "train", tmp_path / "other").ids.tolist() == whole


def test_a_prompt_is_encoded_as_the_text_was(tmp_path):
    for tokenizer in (byte_level(bos_token="<s>"), load_tokenizer("bytes", Corpus.of("x", TEXTS, TEXTS))):
        ids = tokenize(Corpus.of("x", TEXTS, TEXTS), tokenizer, "train", tmp_path).ids.tolist()
        prompt = encode_prompt(tokenizer, TEXTS[0])
        assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize(("prompt", "message"), [("", "prompt is empty"), ("a\ud800", "prompt is not UTF-8")])
def test_a_prompt_must_be_text(prompt, message):
    with pytest.raises(InputError, match=message):
        encode_prompt(byte_level(), prompt)


def test_ids_with_gaps_need_rows_up_to_the_largest(tmp_path):
    tokenizer = words({"[U]": 0, "a": 700, "b": 3})
    assert vocabulary_size(tokenizer) == 701
    with pytest.raises(InputError, match="has 701 ids"):
        require_vocabulary(tokenizer, 700)
    tokens = tokenize(Corpus.of("x", ["a b a"], ["a"]), tokenizer, "train", tmp_path)
    assert tokens.ids.tolist() == [700, 3, 700]


def test_a_tokenizer_that_fails_is_one_sentence(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="[nowhere]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(InputError, match=r"the tokenizer cannot encode the text .*UNK"):
        tokenize(Corpus.of("x", ["b"], ["a"]), tokenizer, "train", tmp_path)


def test_a_tokenizer_with_code_of_its_own_is_refused_and_not_run(tmp_path):
    own = {"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": ["my.MyTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "my.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError, match="code of its own"):
        load_tokenizer(str(tmp_path), Corpus.of("x", TEXTS, TEXTS))
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_tokenizer(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"a.json' is not a tokenizer"):
        load_tokenizer(str(tmp_path / "a.json"), Corpus.of("x", TEXTS, TEXTS))


@given(
    st.lists(st.sampled_from(["word", " ", "\n", "\n\n  ", "\t", "x" * 700, "\u00e9", "{}", "1" * 900]), max_size=400)
)
def test_pieces_join_to_the_text_and_are_cut_at_words_where_there_are_any(parts):
    text = "".join(parts) * 20
    cut = list(pieces(text))
    assert "".join(cut) == text
    for before, after in pairwise(cut):
        assert PIECE_CHARACTERS <= len(before) <= 2 * PIECE_CHARACTERS
        if before[PIECE_CHARACTERS:].strip() != before[PIECE_CHARACTERS:]:
            assert before[-1].isspace() and not after[0].isspace()


@pytest.mark.parametrize("unit", ["ACGT", "7", " ", "\u6f22", '{"a":1}'])
def test_one_long_line_is_never_one_piece(unit):
    text = unit * 200_000
    cut = list(pieces(text))
    assert "".join(cut) == text and max(map(len, cut)) <= 2 * PIECE_CHARACTERS
