import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from loopscale.data import (
    Corpus,
    Tokens,
    Windows,
    batches,
    collate,
    disk_cache,
    load_data,
    load_tokenizer,
    token_cache,
    tokenize,
)
from loopscale.data.disk_cache import build_once, default_cache_dir
from loopscale.data.encoding import PIECE_CHARACTERS
from loopscale.errors import InputError

LONG = "some words, a few symbols;\n\n  then caf\u00e9 and \u2014 again\n" * 2000
CORPUS = Corpus.of("tiny", ["first", LONG, "last\n"], ["a valid text\n" * 20])


def in_memory(n: int) -> Tokens:
    return Tokens(np.arange(n, dtype=np.uint16), n)


def test_bytes_tokens_are_the_documents_each_ended_by_a_newline(tmp_path):
    tokens = tokenize(CORPUS, load_tokenizer("bytes", CORPUS), "train", tmp_path)
    assert tokens.ids.tobytes() == f"first\n{LONG}last\n".encode()
    assert tokens.ids.dtype == np.uint8 and tokens.bytes_per_token == 1.0
    assert len(LONG) > 2 * PIECE_CHARACTERS


def test_words_cut_into_pieces_are_the_words_of_the_whole(tmp_path):
    tokenizer = load_tokenizer("words", CORPUS, cache_dir=tmp_path)
    tokens = tokenize(CORPUS, tokenizer, "train", tmp_path)
    whole = [i for text in ("first\n", LONG, "last\n") for i in tokenizer(text)["input_ids"]]
    assert tokens.ids.tolist() == whole
    assert tokens.text_bytes == len(f"first\n{LONG}last\n".encode())
    assert tokens.bytes_per_token == pytest.approx(tokens.text_bytes / len(whole))


def test_end_of_text_follows_each_document_where_the_tokenizer_has_one(tmp_path):
    backend = Tokenizer(models.WordLevel({"[E]": 0, "first": 1, "last": 2, "[U]": 3}, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[E]", unk_token="[U]")
    corpus = Corpus.of("x", ["first", "last last", "last " * 10_000], ["first"])
    tokens = tokenize(corpus, tokenizer, "train", tmp_path)
    assert tokens.ids.tolist() == [1, 0, 2, 2, 0] + [2] * 10_000 + [0]
    assert tokens.text_bytes == len("first" + "last last" + "last " * 10_000)


def test_the_second_time_nothing_is_tokenised(tmp_path, monkeypatch):
    tokenizer = load_tokenizer("bytes", CORPUS)
    first = tokenize(CORPUS, tokenizer, "valid", tmp_path)
    monkeypatch.setattr(token_cache, "encode_documents", lambda *_: pytest.fail("tokenised again"))
    again = tokenize(CORPUS, tokenizer, "valid", tmp_path)
    assert again.path == first.path and np.array_equal(again.ids, first.ids)
    other = Corpus.of("tiny", CORPUS.train, ["another valid text"])
    with pytest.raises(pytest.fail.Exception, match="tokenised again"):
        tokenize(other, tokenizer, "valid", tmp_path)


def test_a_killed_build_leaves_no_trace_that_counts(tmp_path):
    target = tmp_path / "cache" / "file"

    def killed(partial: Path) -> None:
        partial.write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(target, killed)
    assert not target.exists()
    build_once(target, lambda partial: partial.write_text("whole") and None)
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.glob("*.partial")] == []


def test_what_another_process_makes_is_waited_for_in_words(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(disk_cache, "PATIENCE", 0.01)
    target = tmp_path / "file"

    def build(partial: Path) -> None:
        partial.write_text("whole")
        other.start()
        while not caplog.records:
            time.sleep(0.001)

    other = threading.Thread(target=build_once, args=(target, lambda _: pytest.fail("made again")))
    build_once(target, build)
    other.join()
    assert "another process makes" in caplog.text and str(target) in caplog.text


def test_a_damaged_file_is_made_again(tmp_path):
    tokenizer = load_tokenizer("bytes", CORPUS)
    path = tokenize(CORPUS, tokenizer, "valid", tmp_path).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:100])
    assert tokenize(CORPUS, tokenizer, "valid", tmp_path).ids.tobytes() == CORPUS.valid[0].encode()


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LOOPSCALE_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / "loopscale"
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write the cache .* LOOPSCALE_CACHE"):
        tokenize(CORPUS, load_tokenizer("bytes", CORPUS), "valid", tmp_path / "file")


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch):
    def nobody(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LOOPSCALE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(InputError, match=r"no home folder .* LOOPSCALE_CACHE"):
        default_cache_dir()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def unsupported(lock, *_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    path = build_once(tmp_path / "file", lambda partial: partial.write_text("whole") and None)
    assert path.read_text() == "whole" and list(tmp_path.glob("*.partial")) == []


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 20))
def test_rows_are_the_windows_of_the_array(n, sequence_length, stride):
    ids = np.arange(n, dtype=np.uint16)
    if n <= sequence_length:
        with pytest.raises(InputError, match="too short"):
            Windows(Tokens(ids, n), sequence_length, stride)
        return
    windows = Windows(Tokens(ids, n), sequence_length, stride)
    starts = range(0, n - sequence_length, stride)
    wanted = torch.tensor([list(range(s, s + sequence_length + 1)) for s in starts])
    assert len(windows) == len(wanted)
    assert torch.equal(torch.stack([windows[i] for i in range(len(windows))]), wanted)
    backwards = list(range(len(windows)))[::-1]
    assert torch.equal(windows.rows(backwards), wanted.flip(0))
    assert torch.equal(torch.cat(list(batches(windows, 3))), wanted)


def test_stride_of_the_sequence_length_predicts_each_token_once():
    windows = Windows(in_memory(41), 8, 8)
    assert torch.cat(list(batches(windows, 2)))[:, 1:].flatten().tolist() == list(range(1, 41))


def test_rows_share_the_memory_of_the_file(tmp_path):
    tokens = tokenize(CORPUS, load_tokenizer("bytes", CORPUS), "train", tmp_path)
    windows = Windows(tokens, 64, 1)
    assert np.shares_memory(windows._rows, tokens.ids)
    assert not tokens.ids.flags.owndata


def test_a_pickled_dataset_is_small_and_the_same(tmp_path):
    windows = Windows(tokenize(CORPUS, load_tokenizer("bytes", CORPUS), "train", tmp_path), 64, 3)
    data = pickle.dumps(windows)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert len(again) == len(windows) and torch.equal(again[5], windows[5])
    memory = pickle.loads(pickle.dumps(Windows(in_memory(30), 4, 2)))
    assert memory[1].tolist() == [2, 3, 4, 5, 6]


def test_collate_shifts_by_one():
    windows = Windows(in_memory(30), 4, 4)
    for rows in ([windows[0], windows[1]], windows.__getitems__([0, 1])):
        batch = collate(rows)
        assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert batch["shift_labels"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert batch["input_ids"].dtype == torch.int64 and batch["input_ids"].is_contiguous()


def test_a_dataloader_takes_it():
    loader = DataLoader(Windows(in_memory(100), 9, 9), batch_size=4, shuffle=True, collate_fn=collate)
    labels = torch.cat([batch["shift_labels"] for batch in loader])
    assert sorted(labels.flatten().tolist()) == list(range(1, 100))


def test_limited_batches_are_spread_over_the_text():
    windows = Windows(in_memory(1001), 10, 10)
    taken = list(batches(windows, 2, limit=5))
    assert [tuple(batch.shape) for batch in taken] == [(2, 11)] * 5
    assert torch.cat(taken)[:, 0].tolist() == list(range(0, 1000, 100))
    assert len(list(batches(windows, 30, limit=99))) == 4


def test_a_plain_dataloader_takes_it():
    windows = Windows(in_memory(100), 9, 9)
    (first, *_), rows = list(DataLoader(windows, 4)), windows.rows([0, 1, 2, 3])
    assert torch.equal(first, rows) and first.dtype == torch.int64


def test_shuffled_batches_are_the_same_rows_in_an_order_of_their_seed():
    windows = Windows(in_memory(1001), 10, 10)
    plain = torch.cat(list(batches(windows, 3)))
    one, again, other = (torch.cat(list(batches(windows, 3, shuffle=True, seed=seed))) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, plain)
    assert torch.equal(one[one[:, 0].argsort()], plain)
    limited = torch.cat(list(batches(windows, 2, limit=5, shuffle=True)))
    assert sorted(limited[:, 0].tolist()) == list(range(0, 1000, 100))


@pytest.mark.parametrize(("batch_size", "limit"), [(0, None), (4, 0), (-1, 3)])
def test_batches_need_positive_sizes(batch_size, limit):
    with pytest.raises(InputError, match="at least 1"):
        list(batches(Windows(in_memory(30), 4, 4), batch_size, limit))


@pytest.mark.parametrize(("sequence_length", "stride"), [(0, 1), (4, 0), (-3, -3)])
def test_windows_need_positive_lengths(sequence_length, stride):
    with pytest.raises(InputError, match="must be at least 1"):
        Windows(in_memory(30), sequence_length, stride)


def test_load_data_from_names_to_windows(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(LONG)
    cache = tmp_path / "cache"
    data = load_data(str(file), "bytes", vocab_size=256, sequence_length=32, stride=8, cache_dir=cache)
    text = LONG.encode()
    assert bytes(data.train[3].tolist()) == text[24 : 24 + 33]
    assert data.valid.stride == 32 and data.bytes_per_token == 1.0
    assert data.corpus.name == "text.txt" and len(data.corpus.sha256) == 64
    words = load_data(str(file), "words", vocab_size=50, sequence_length=32, cache_dir=cache)
    assert words.train.stride == 32 and words.bytes_per_token > 2
    same = load_data(str(file), words.tokenizer, vocab_size=50, sequence_length=32, cache_dir=cache)
    assert same.train.tokens.path == words.train.tokens.path


def test_load_data_names_the_split_that_is_too_short(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("x" * 1000)
    with pytest.raises(InputError, match=r"valid split of corpus 'text.txt' is too short: 51 tokens, .* takes 65"):
        load_data(str(file), "bytes", sequence_length=64, cache_dir=tmp_path / "cache")


def test_text_and_model_must_share_a_vocabulary(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(LONG)
    cache = tmp_path / "cache"
    data = load_data(str(file), "bytes", sequence_length=32, cache_dir=cache)
    data.require_vocabulary(256)
    with pytest.raises(InputError, match="token id 226, but the model's vocabulary has only 128"):
        data.require_vocabulary(128)
    with pytest.raises(InputError, match="too small for the tokenizer"):
        load_data(str(file), data.tokenizer, vocab_size=128, sequence_length=32, cache_dir=cache)


def test_text_that_the_tokenizer_drops_altogether(tmp_path):
    backend = Tokenizer(models.WordLevel({"[U]": 0}, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[^a]+"), behavior="removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[U]")
    with pytest.raises(InputError, match="makes no token of the train split of corpus 'dropped'"):
        tokenize(Corpus.of("dropped", ["bcd"], ["a"]), tokenizer, "train", tmp_path)
    assert len(tokenize(Corpus.of("kept", ["bad"], ["a"]), tokenizer, "train", tmp_path).ids) == 1


def test_a_text_that_is_mostly_unknown_is_told(tmp_path):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "known": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    for text, told in (("known unheard of", True), ("known known of", False)):
        (tmp_path / "a.txt").write_text(f"{text}\n" * 200)
        notes = load_data(str(tmp_path / "a.txt"), tokenizer, sequence_length=8, cache_dir=tmp_path, quiet=True).notes
        assert any("67% of its tokens are [UNK]" in note for note in notes) == told
