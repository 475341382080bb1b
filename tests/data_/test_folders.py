"""Folders: what is walked, how names split it, and that everything left out is named."""

import gzip
import json
import os
from pathlib import Path, PurePosixPath

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopscale.data import Corpus, load_corpus
from loopscale.data.folders.splits import role_of
from loopscale.errors import InputError

ROWS = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(40))


def tree(folder: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def said(corpus: Corpus) -> str:
    return "\n".join(corpus.notes)


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("train.txt", "train"),
        ("TRAIN.TXT", "train"),
        ("TrainData.jsonl", "train"),
        ("training_set.csv", "train"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("en/Validation/a.txt", "valid"),
        ("wiki.valid.tokens", "valid"),
        ("my_dev.txt", "valid"),
        ("held_out.txt", "valid"),
        ("val.jsonl.gz", "valid"),
        ("data/testing/a.txt", "test"),
        ("train_test.txt", "test"),
        ("train/dev_talk.txt", "train"),
        ("latest.txt", None),
        ("training.md", None),
        ("train.md", "train"),
        ("train.py", None),
        ("tests/test.py", None),
        ("trainspotting.txt", None),
    ],
)
def test_roles_of_names(path, role):
    assert role_of(PurePosixPath(path)) == role


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.txt", "valid/a.txt", "test/a.txt"),
        ("Train/a.txt", "Dev/a.txt", "TEST/a.txt"),
        ("training/a.txt", "eval/a.txt", "testing/a.txt"),
        ("my_train.txt", "my_dev.txt", "my_test.txt"),
        ("a/b/wiki.train.tokens", "a/b/wiki.valid.tokens", "a/b/wiki.test.tokens"),
        ("corpus.txt", "corpus.val.txt", "corpus.test.txt"),
        ("data/train-00000-of-00001.txt", "data/validation-00000-of-00001.txt", "data/test-00000-of-00001.txt"),
    ],
)
def test_splits_by_name_are_kept_and_told(names, tmp_path, caplog):
    train, valid, test = names
    folder = tree(tmp_path / "text", {train: "T\n", valid: "V\n", test: "never\n", "README.md": "card\n"})
    corpus = load_corpus(folder)
    assert (corpus.train, corpus.valid) == (("T\n",), ("V\n",))
    assert all(name in said(corpus) for name in (*names, "README.md"))
    assert [record.getMessage() for record in caplog.records] == [f"corpus 'text': {note}" for note in corpus.notes]


def test_quiet_says_nothing(tmp_path, caplog):
    assert load_corpus(tree(tmp_path, {"a.txt": "text\n" * 40}), quiet=True).notes
    assert not caplog.records


def test_a_test_split_alone_is_left_out_and_the_rest_held_out(tmp_path):
    corpus = load_corpus(tree(tmp_path, {"train.jsonl": ROWS, "test.jsonl": ROWS.replace("row", "never")}))
    assert len(corpus.train + corpus.valid) == 40 and not any("never" in text for text in corpus.train + corpus.valid)
    assert "test.jsonl (a test split)" in said(corpus) and "2 of" not in said(corpus)
    assert "one in 20 of its 40 documents is held out" in said(corpus)


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(InputError, match=r"nothing to train on: .* test.txt, valid.txt"):
        load_corpus(tree(tmp_path, {"valid.txt": "a", "test.txt": "b"}))


def test_files_of_no_split_are_left_out_where_others_name_theirs(tmp_path):
    corpus = load_corpus(tree(tmp_path, {"train.txt": "T", "valid.txt": "V", "extra.txt": "E"}))
    assert corpus.train == ("T",) and "extra.txt (of no split" in said(corpus)


def test_pages_about_training_are_pages(tmp_path):
    pages = {name: f"{name} " * 20 for name in ("training.md", "testing.md", "dev/guide.md")}
    assert sum(map(len, load_corpus(tree(tmp_path, pages)).train)) > 300


def test_a_program_is_text_but_not_beside_rows(tmp_path):
    program = {"train.py": "a = 1\n" * 30, "tests/test_it.py": "b = 2\n" * 30, "package.json": "{}"}
    corpus = load_corpus(tree(tmp_path / "code", program))
    assert "b = 2" in corpus.train[0] and "package.json (line 1: no field 'text')" in said(corpus)
    corpus = load_corpus(tree(tmp_path / "rows", {"load.py": "a = 1\n", "rows.jsonl": ROWS}))
    assert len(corpus.train) == 38 and "load.py (a program beside the data)" in said(corpus)


def test_what_is_left_out_is_named_once_with_why(tmp_path):
    files = {"A.JSONL": ROWS, "B.TXT": "prose\n", "d.csv": "id,remark\n1,none\n", "e.txt": "", "p.png": b"\x89PNG"}
    debris = {".hidden.txt": "x", ".git/a.txt": "x", "__MACOSX/a.txt": "x", "Thumbs.db": b"\0", "u.txt~": "x"}
    copies = {"A.JSONL.gz": gzip.compress(ROWS.encode()), "v.lock": ""}
    corpus = load_corpus(tree(tmp_path, files | debris | copies))
    assert len(corpus.train + corpus.valid) == 41
    (note,) = [note for note in corpus.notes if note.startswith("left out")]
    names = "d.csv", "e.txt", "p.png", ".hidden.txt", ".git", "__MACOSX", "Thumbs.db", "u.txt~", "v.lock", "A.JSONL.gz"
    assert all(note.count(name) == 1 for name in names)
    assert "d.csv (no column 'text')" in note


def test_long_lists_are_cut(tmp_path):
    corpus = load_corpus(tree(tmp_path, {"a.txt": "text\n" * 40} | {f"{i:03}.png": "" for i in range(300)}))
    assert "and 295 more" in said(corpus) and len(said(corpus)) < 400


def test_links_are_followed_once(tmp_path):
    tree(tmp_path / "f", {"real/a.txt": "text\n" * 40})
    tree(tmp_path / "elsewhere", {"b.txt": "more\n"})
    (tmp_path / "f" / "again").symlink_to("real")
    (tmp_path / "f" / "loop").symlink_to(".")
    (tmp_path / "f" / "dangling.txt").symlink_to("nothing.txt")
    (tmp_path / "f" / "same.txt").symlink_to("real/a.txt")
    (tmp_path / "f" / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "f" / "pipe.txt")
    corpus = load_corpus(str(tmp_path / "f"))
    text = "".join(corpus.train + corpus.valid)
    assert text.count("text") == 40 and text.count("more") == 1
    for name in ("again", "loop", "dangling.txt (a link to nothing", "same.txt (the same file as", "pipe.txt (a pipe"):
        assert name in said(corpus)


def test_the_hubs_cache_of_blobs_and_links(tmp_path):
    tree(tmp_path, {"blobs/0a1b": ROWS, "refs/main": "0a1b"})
    (tmp_path / "snapshots" / "x").mkdir(parents=True)
    (tmp_path / "snapshots" / "x" / "train-00000-of-00001.jsonl").symlink_to("../../blobs/0a1b")
    assert len(load_corpus(str(tmp_path)).train) == 38


def test_a_split_whose_files_lack_the_column_names_it(tmp_path):
    with pytest.raises(InputError, match=r"valid.csv': no column 'text'; its columns are: id"):
        load_corpus(tree(tmp_path, {"train.jsonl": ROWS, "valid.csv": "id\n1\n"}))


def test_a_folder_that_datasets_saved(tmp_path):
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(40)]})
    made.select(range(5)).save_to_disk(tmp_path / "both" / "test")
    made.save_to_disk(tmp_path / "both" / "train", num_shards=2)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    alone = load_corpus(str(tmp_path / "both" / "train"))
    assert alone.train + alone.valid and len(alone.train) == 38
    assert set(load_corpus(str(tmp_path / "both")).train) == set(alone.train)
    stale = tmp_path / "both" / "train" / "data-00002-of-00003.arrow"
    stale.write_bytes((tmp_path / "both" / "train" / "data-00000-of-00002.arrow").read_bytes())
    corpus = load_corpus(str(tmp_path / "both" / "train"))
    assert len(corpus.train) == 38 and stale.name in said(corpus)


def test_configurations_are_read_together_and_told(tmp_path):
    for language in ("en", "de"):
        (tmp_path / language).mkdir()
        for split in ("train", "validation"):
            pq.write_table(pa.table({"text": [f"{language} {split}"]}), tmp_path / language / f"{split}-0.parquet")
    corpus = load_corpus(str(tmp_path))
    assert corpus.train == ("de train", "en train") and corpus.valid == ("de validation", "en validation")
    assert "splits of de, en are read together" in said(corpus)


def test_missing_shards_are_told(tmp_path):
    names = "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl", "valid-00000-of-00001.jsonl"
    notes = said(load_corpus(tree(tmp_path, dict.fromkeys(names, ROWS))))
    assert "of 3 files train-*-of-00003 only 2 are there" in notes and "valid-*" not in notes


def test_the_content_is_the_identity(tmp_path):
    one = load_corpus(tree(tmp_path / "one", {"train.txt": "T\n", "valid.txt": "V\n"}))
    other = load_corpus(tree(tmp_path / "other", {"x/my_train.TXT": "T\r\n", "x/my_dev.text": "\ufeffV\n"}))
    assert one.id.sha256 == other.id.sha256 and one.id.name != other.id.name
