"""Folders too large for memory: the same text, read file after file, tokenised in parts, and surveyed once."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopscale import InputError
from loopscale.data import corpora, load_corpus, load_tokenizer, tokenize
from loopscale.data.folders import reading
from loopscale.data.sharded import catalogue, documents, token_parts
from loopscale.data.sharded.token_parts import write_part
from loopscale.data.sharded.token_processes import processes_for, write_parts

TEXTS = [f"document {i} caf\u00e9 " + "of some words " * (i % 7) for i in range(90)]


def write(folder, names):
    """Write the texts into so many files, with rows without text, beside a file that is not read."""
    each = len(TEXTS) // len(names)
    for i, name in enumerate(names):
        pq.write_table(pa.table({"text": [*TEXTS[i * each : (i + 1) * each], None, ""]}), folder / f"{name}.parquet")
    (folder / "notes.bin").write_bytes(b"not text")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders whose validation text is held out of every file, is named, and is the end of a few documents."""
    base = tmp_path_factory.mktemp("large")
    for kind in ("spread", "named", "few"):
        (base / kind).mkdir()
    write(base / "spread", [f"part-{i}" for i in range(9)])  # ten documents each: some have none that is held out
    write(base / "named", ["train-0", "train-1", "valid-0"])
    for i in range(3):
        (base / "few" / f"{i}.txt").write_text(TEXTS[i] + "\n" + TEXTS[i + 40])
    return base


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(documents, "IN_MEMORY", 1)
    monkeypatch.setattr(catalogue, "SETTLED", 0)
    monkeypatch.setattr(token_parts, "PART", 1)


def of_tokens(corpus, split, cache, processes=1):
    return tokenize(corpus, load_tokenizer("bytes", corpus), split, cache, processes)


def shards_of(corpus):
    assert isinstance(corpus.train, documents.Documents)
    return corpus.train.shards


@pytest.mark.parametrize("kind", ["spread", "named", "few"])
def test_a_large_folder_is_the_same_text_and_the_same_tokens(folders, kind, tmp_path, request):
    folder = str(folders / kind)
    held = load_corpus(folder, cache_dir=tmp_path, quiet=True)
    request.getfixturevalue("large")
    for _ in range(2):  # surveyed, and from the catalogue
        found = load_corpus(folder, cache_dir=tmp_path, quiet=True)
        assert (found.id, found.notes) == (held.id, held.notes)
        assert isinstance(found.train, documents.Documents) == (kind != "few")
        for split in ("train", "valid"):
            texts, same = held.documents(split), found.documents(split)
            assert len(same) == len(texts) and tuple(same) == texts
            assert (same[-1], same[len(same) // 2], same[:2]) == (texts[-1], texts[len(texts) // 2], texts[:2])
            ids = of_tokens(held, split, tmp_path / "held"), of_tokens(found, split, tmp_path / "found")
            assert ids[0].path.read_bytes() == ids[1].path.read_bytes()
    with pytest.raises(IndexError):
        found.train[len(found.train)]


def test_files_that_stay_as_they_are_are_read_once(folders, large, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(folders / "spread", folder)
    first = load_corpus(str(folder), cache_dir=tmp_path)
    with monkeypatch.context() as here:
        here.setattr(reading, "read_file", lambda *_: pytest.fail("read again"))
        assert load_corpus(str(folder), cache_dir=tmp_path) == first
        (survey,) = tmp_path.glob("corpus-*.json")
    survey.write_text(survey.read_text()[:-40])  # damaged: it is made again
    assert load_corpus(str(folder), cache_dir=tmp_path) == first
    shutil.copy(folder / "part-0.parquet", folder / "part-1.parquet")
    assert load_corpus(str(folder), cache_dir=tmp_path).id.sha256 != first.id.sha256


def test_files_that_were_just_written_are_not_taken_for_settled(folders, large, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "SETTLED", 1e15)
    load_corpus(str(folders / "spread"), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_changes_before_it_is_tokenised_is_told(folders, large, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders / "spread", folder)
    corpus = load_corpus(str(folder), cache_dir=tmp_path)
    os.utime(folder / "part-3.parquet", ns=(0, 0))
    with pytest.raises(InputError, match=r"part-3\.parquet' changed while it was read"):
        of_tokens(corpus, "train", tmp_path)


def test_a_tokeniser_that_was_stopped_goes_on_with_the_next_part(folders, large, tmp_path, monkeypatch):
    corpus = load_corpus(str(folders / "spread"), cache_dir=tmp_path)
    written = []

    def stopped(part, shards, tokenizer):
        if len(written) == 5:
            raise KeyboardInterrupt
        write_part(part, shards, tokenizer)
        written.append(part)

    monkeypatch.setattr(token_parts, "write_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        of_tokens(corpus, "train", tmp_path)
    monkeypatch.setattr(token_parts, "write_part", lambda *work: written.append(work[0]) or write_part(*work))
    tokens = of_tokens(corpus, "train", tmp_path)
    assert len(written) == len(set(written)) == 9
    assert tokens.ids.tobytes() == "".join(f"{text}\n" for text in corpus.train).encode()
    assert not list(tmp_path.glob("*.parts"))


def test_a_process_of_its_own_writes_the_same_parts_and_says_what_is_wrong(folders, large, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders / "named", folder)
    corpus = load_corpus(str(folder), cache_dir=tmp_path)
    tokenizer = load_tokenizer("bytes", corpus)
    good, bad = shards_of(corpus)
    done = []
    (folder / "train-1.parquet").unlink()
    with pytest.raises(InputError, match=r"train-1\.parquet' is unreadable"):
        write_parts({tmp_path / "good": (good,), tmp_path / "bad": (bad,)}, tokenizer, 1, done.append)
    write_part(tmp_path / "here", (good,), tokenizer)
    assert done == [tmp_path / "good"] and done[0].read_bytes() == (tmp_path / "here").read_bytes()


def test_processes_are_as_many_as_parts_and_memory_allow(folders, large, monkeypatch):
    parts = {Path(str(i)): (shard,) for i, shard in enumerate(shards_of(load_corpus(str(folders / "spread"))))}
    assert processes_for(parts, 4) == 4 and processes_for(parts, 100) == 9
    monkeypatch.setattr("loopscale.data.sharded.token_processes.UNPACKED", 2**60)
    assert processes_for(parts, None) == 0  # this process does it alone


def test_names_that_are_no_utf_8_are_read(folders, large, tmp_path):
    shutil.copytree(folders / "spread", tmp_path / "mine")
    (tmp_path / "mine" / os.fsdecode(b"\xff.txt")).write_text("more text. " * 30)
    assert load_corpus(str(tmp_path / "mine"), cache_dir=tmp_path / "cache").train


def test_a_folder_that_a_link_named_is_not_asked_for_by_the_link(folders, large, tmp_path):
    shutil.copytree(folders / "spread", tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    first = load_corpus(str(tmp_path / "link"), cache_dir=tmp_path / "cache")
    (tmp_path / "link").unlink()
    second = load_corpus(str(tmp_path / "mine"), cache_dir=tmp_path / "cache")
    assert list(second.train) == list(load_corpus(str(tmp_path / "mine"), cache_dir=tmp_path / "other").train)
    assert second.id.sha256 == first.id.sha256


def test_a_large_folder_whose_text_is_small_is_read_once(folders, large, tmp_path, monkeypatch):
    read = []
    whole = corpora.read_folder
    monkeypatch.setattr(corpora, "read_folder", lambda *given: read.append(given) or whole(*given))
    load_corpus(str(folders / "few"), cache_dir=tmp_path / "cache")
    assert len(read) == 1
