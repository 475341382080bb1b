import json
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscale.data import Corpus, hub, load_corpus
from loopscale.data.readers import READ_ENDINGS
from loopscale.errors import InputError

LINES = "".join(f"line {i} of the text\n" for i in range(200))


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_stdlib_is_this_pythons_own_source_without_tests():
    corpus = load_corpus("stdlib")
    root = Path(sysconfig.get_path("stdlib"))
    everything = corpus.train + corpus.valid
    assert (root / "argparse.py").read_text() in everything
    assert (root / "json" / "decoder.py").read_text() in everything
    assert not any("class ArgumentParserTest" in text or "build_time_vars = {" in text for text in everything)
    share = len(corpus.valid) / len(everything)
    assert 0.045 < share <= 0.05
    assert not set(corpus.train) & set(corpus.valid) or len(set(everything)) < len(everything)
    assert corpus.id == load_corpus("stdlib").id


def test_stdlib_skips_tests_packages_and_other_encodings(tmp_path, monkeypatch):
    for i in range(40):
        write(tmp_path / f"mod_{i:02}.py", f"x = {i}\n")
    for folder in (
        "test",
        "lib2to3/tests",
        "idlelib/idle_test",
        "site-packages",
        "dist-packages",
        "__pycache__",
    ):
        write(tmp_path / folder / "no.py", "leak = 1\n")
    write(tmp_path / "_sysconfigdata__linux.py", "leak = 1\n")
    write(tmp_path / "config-3.11-linux" / "python-config.py", "leak = 1\n")
    write(tmp_path / "latin.py", "# -*- coding: latin-1 -*-\n# caf\xe9\n".encode("latin-1"))
    write(tmp_path / "empty.py", "")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    corpus = load_corpus("stdlib")
    assert corpus.valid == ("x = 19\n", "x = 39\n")
    assert len(corpus.train) == 38
    assert not any("leak" in text for text in corpus.train)


def test_a_single_file_holds_out_its_last_lines(tmp_path):
    corpus = load_corpus(write(tmp_path / "a.txt", LINES))
    assert corpus.train[0] + corpus.valid[0] == LINES
    assert corpus.valid[0].startswith("line 19") and corpus.train[0].endswith("\n")
    assert 0.03 < len(corpus.valid[0]) / len(LINES) <= 0.05
    assert corpus.id.name == "a.txt"


def test_one_long_line_is_cut_all_the_same(tmp_path):
    corpus = load_corpus(write(tmp_path / "a.txt", "x" * 1000))
    assert (len(corpus.train[0]), len(corpus.valid[0])) == (950, 50)


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ("train.txt", "valid.txt"),
        ("train.md", "validation.md"),
        ("wiki.train.tokens", "wiki.valid.tokens"),
        ("wiki.train.raw", "wiki.val.raw"),
        ("train-00000-of-00001.txt", "dev-00000-of-00001.txt"),
    ],
)
def test_a_folder_with_splits_is_split_so(tmp_path, train, valid):
    write(tmp_path / train, "to train on\n")
    write(tmp_path / valid, "to measure on\n")
    write(tmp_path / "test.txt", "to leave alone\n")
    write(tmp_path / "README.md", "about\n")
    corpus = load_corpus(str(tmp_path))
    assert (corpus.train, corpus.valid) == (("to train on\n",), ("to measure on\n",))


def test_a_folder_of_files_holds_out_every_twentieth_in_sorted_order(tmp_path):
    for i in reversed(range(41)):
        write(tmp_path / f"{i % 3}" / f"{i:02}.txt", f"{i}\n")
    write(tmp_path / ".hidden" / "no.txt", "no\n")
    write(tmp_path / "picture.png", b"\x89PNG")
    corpus = load_corpus(str(tmp_path))
    order = [i for rest in range(3) for i in range(rest, 41, 3)]
    assert corpus.valid == (f"{order[19]}\n", f"{order[39]}\n")
    assert [int(text) for text in corpus.train] == [i for n, i in enumerate(order, 1) if n % 20]


def test_a_folder_of_few_files_holds_out_the_end_of_the_text(tmp_path):
    write(tmp_path / "train.txt", LINES)  # nothing is held out by its name: a plain text
    write(tmp_path / "b.txt", LINES)
    corpus = load_corpus(str(tmp_path))
    assert 0.03 < len(corpus.valid[0]) / (2 * len(LINES)) <= 0.05


def test_jsonl_and_parquet_rows_are_documents(tmp_path):
    texts = [f"document {i}\n" for i in range(40)]
    rows = "\n".join(json.dumps({"id": i, "body": text}) for i, text in enumerate(texts))
    of_json = load_corpus(write(tmp_path / "a.jsonl", rows + "\n\n"), text_field="body")
    pq.write_table(pa.table({"body": [*texts, None]}), tmp_path / "a.parquet")
    of_parquet = load_corpus(str(tmp_path / "a.parquet"), text_field="body")
    assert of_json.train == of_parquet.train == tuple(texts[:38])
    assert of_json.valid == of_parquet.valid == tuple(texts[38:])
    assert of_json.id.sha256 == of_parquet.id.sha256


def test_the_hash_tells_content_and_splits_apart():
    def sha(train, valid):
        return Corpus.of("x", train, valid).id.sha256

    assert sha(["ab"], ["c"]) == sha(["ab"], ["c"])
    different = {sha(["ab"], ["c"]), sha(["a", "b"], ["c"]), sha(["a"], ["b", "c"]), sha(["c"], ["ab"])}
    assert len(different) == 4


def test_line_ends_and_byte_order_mark(tmp_path):
    windows = load_corpus(write(tmp_path / "w.txt", b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode()))
    assert windows.id.sha256 == load_corpus(write(tmp_path / "u.txt", LINES)).id.sha256


def test_wikitext_comes_raw_from_the_hub(monkeypatch):
    import datasets

    rows = {"train": {"text": ["", " = A = \n", "", " text \n"]}, "validation": {"text": [" more \n"]}}
    asked = []
    monkeypatch.setattr(hub, "trouble", lambda: pytest.fail("the cache is enough"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or rows)
    corpus = load_corpus("wikitext-103")
    assert asked == [("Salesforce/wikitext", "wikitext-103-raw-v1")]
    assert corpus.train == ("\n = A = \n\n text \n",) and corpus.valid == (" more \n",)
    assert corpus.id.name == "wikitext-103"


def test_without_network_a_hub_corpus_says_what_to_do(tmp_path, monkeypatch):
    from datasets import config

    monkeypatch.setattr(hub, "trouble", lambda: "no network")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(InputError, match=r"'wikitext-2' could not be loaded .*no network.* download it elsewhere"):
        load_corpus("wikitext-2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "train split of corpus 'empty.txt' is empty"),
        ("blank.txt", " \n" * 50, "is empty"),
        ("short.txt", "x", "is empty"),
        ("latin.txt", b"caf\xe9 au lait", r"latin.txt' is not UTF-8 text: byte 3 is 0xe9"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a.jsonl', line 2: not JSON"),
        (
            "a.jsonl",
            '{"text": "a"}\n\n{"body": "b", "id": 1}\n',
            "line 3: no field 'text'; its fields are: body, id",
        ),
        ("a.jsonl", '{"text": 3}\n', "line 1: field 'text' must be a string, this is int"),
        ("a.jsonl", '{"text": "a"}\n[1, 2]\n', "line 2: a JSON object is needed, this is list"),
        ("a.json", "[1, 2]\n", "row 1: a JSON object is needed, this is int"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "half a surrogate pair"),
        ("a.parquet", b"not parquet at all", "a.parquet' is not a readable parquet file"),
    ],
)
def test_bad_files_are_one_clear_sentence(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        load_corpus(write(tmp_path / name, content))


def test_parquet_columns_are_named(tmp_path):
    pq.write_table(pa.table({"remark": ["a"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'text'; its columns are: id, remark"):
        load_corpus(str(tmp_path / "a.parquet"))
    with pytest.raises(InputError, match="column 'id' must hold strings, it holds int64"):
        load_corpus(str(tmp_path / "a.parquet"), text_field="id")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stdlibb", "unknown corpus 'stdlibb': did you mean 'stdlib'"),
        ("wikitext2", "did you mean 'wikitext-2'"),
        ("zzz", "choose one of: stdlib, wikitext-103, wikitext-2"),
        ("", "unknown corpus"),
        ("no/such/folder", "no such file or folder: 'no/such/folder'"),
        ("missing.txt", "no such file or folder: 'missing.txt'"),
        ("x" * 5000, "unknown corpus"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(InputError, match=message):
        load_corpus(name)


def test_a_folder_without_text(tmp_path):
    write(tmp_path / "picture.png", b"\x89PNG")
    with pytest.raises(InputError, match=r"no text files \(picture.png \('.png' is not .*these endings .*\.txt"):
        load_corpus(str(tmp_path))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51, 1.0, float("nan")])
def test_valid_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match="valid_fraction must be above 0 and at most"):
        load_corpus("stdlib", valid_fraction=fraction)


STRUCTURED = [
    b"",
    b"PK\x03\x04",
    b"PAR1\x00",
    b"ARROW1\x00\x00",
    b"\xff\xff\xff\xff\x10\x00",
    b"\x1f\x8b\x08",
    b"BZh9",
    b"\xff\xfe",
]


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from(STRUCTURED),
    content=st.binary(max_size=80),
    suffix=st.sampled_from([*sorted(READ_ENDINGS), ".jsonl.gz", ".txt.zst", ".CSV", ""]),
)
def test_any_bytes_are_a_corpus_or_an_input_error(tmp_path_factory, start, content, suffix):
    file = tmp_path_factory.mktemp("any") / f"a{suffix}"
    file.write_bytes(start + content)
    try:
        corpus = load_corpus(str(file), quiet=True)
    except InputError:
        return
    assert all(corpus.train) and all(corpus.valid)
    if suffix in (".txt", ".md", ".py"):
        text = (start + content).decode().removeprefix("\ufeff").replace("\r\n", "\n")
        assert "".join(corpus.train + corpus.valid) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "body", "data"]), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=4), suffix=st.sampled_from([".json", ".jsonl"]))
def test_any_json_is_a_corpus_or_an_input_error(tmp_path_factory, values, suffix):
    file = tmp_path_factory.mktemp("any") / f"a{suffix}"
    file.write_text("\n".join(map(json.dumps, values)), encoding="utf-8")
    try:
        corpus = load_corpus(str(file), quiet=True)
    except InputError:
        return
    assert all(corpus.train) and all(corpus.valid)
