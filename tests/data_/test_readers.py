"""Files by format: what is read, how rows without text are counted, and the sentence for everything else."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopscale.data.readers import endings, read_file
from loopscale.errors import InputError

TEXTS = [f"row {i}, with a comma" for i in range(40)]
ROWS = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))
CSV = "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def columns(path: Path, values: pa.Array, name: str = "text") -> Path:
    pq.write_table(pa.table({name: values}), path)
    return path


def packed(codec: str, text: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def test_endings_in_parts():
    assert endings("a.b.JSONL.GZ") == ("a.b", ".jsonl", ".gz")
    assert endings("notes") == ("notes", "", "") and endings(".txt") == (".txt", "", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ROWS),
        ("A.JSONL", ROWS),
        ("a.ndjson", "\ufeff" + ROWS.replace("\n", "\r\n")),
        ("a.json", ROWS),
        ("a.json", json.dumps([json.loads(row) for row in ROWS.splitlines()], indent=1)),
        ("a.jsonl", json.dumps([json.loads(row) for row in ROWS.splitlines()])),
        ("a.json", json.dumps({"version": 1, "data": [{"text": text} for text in TEXTS]})),
        ("a.json", json.dumps(TEXTS)),
        ("a.csv", CSV),
        ("a.CSV", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("a.csv", CSV.replace(",text", ";text").replace(',"', ';"')),
        ("a.tsv", "id\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(TEXTS))),
        ("a.jsonl.gz", gzip.compress(ROWS.encode(), mtime=0)),
        ("a.csv.BZ2", bz2.compress(CSV.encode())),
        ("a.jsonl.xz", lzma.compress(ROWS.encode())),
        ("a.jsonl.zst", packed("zstd", ROWS)),
        ("a.jsonl", gzip.compress(ROWS[:600].encode(), mtime=0) + gzip.compress(ROWS[600:].encode(), mtime=0)),
    ],
)
def test_rows_are_documents_in_every_format(name, content, tmp_path):
    assert read_file(write(tmp_path / name, content)).documents == TEXTS


@pytest.mark.parametrize("name", ["a.parquet", "a.txt"])
@pytest.mark.parametrize(
    "values",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
    ],
)
def test_strings_however_they_are_stored(name, values, tmp_path):
    assert read_file(columns(tmp_path / name, values)).documents == TEXTS


def test_arrow_files_and_streams(tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    for name, new in (("a.arrow", pa.ipc.new_stream), ("b.feather", pa.ipc.new_file), ("c.bin", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / name), "wb") as file, new(file, pa.schema({"text": runs.type})) as writer:
            writer.write_batch(pa.record_batch({"text": runs}))
        assert read_file(tmp_path / name).documents == ["a", "a", "b"]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_null_and_empty_rows_are_skipped_and_counted_in_every_format(kind, tmp_path):
    values = ["a", None, "", "b"]
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        columns(file, pa.array(values))
    elif kind == "csv":
        write(file, "text,id\na,1\n,2\n\n,3\nb,4\n")
    else:
        rows = [json.dumps({"text": value}) for value in values]
        write(file, "\n".join(rows) if kind == "jsonl" else f"[{','.join(rows)}]")
    found = read_file(file)
    assert found.documents == ["a", "b"]
    assert any(remark.startswith("2 rows without text are skipped") for remark in found.remarks)


def test_a_column_that_means_text_is_found_and_told(tmp_path):
    found = read_file(write(tmp_path / "a.jsonl", ROWS.replace('"text"', '"content"')))
    assert found.documents == TEXTS and found.remarks == ["the text is read from 'content'"]
    assert read_file(write(tmp_path / "a.jsonl", ROWS), "text").remarks == []
    with pytest.raises(InputError, match="more than one column may be the text; its columns are: body, content"):
        read_file(write(tmp_path / "a.csv", "body,content\na,b\n"))


def test_json_lines_called_text_are_remarked_on(tmp_path):
    assert "jsonl" in read_file(write(tmp_path / "a.txt", ROWS)).remarks[0]
    assert read_file(write(tmp_path / "a.txt", "{ braces }\n{ more }\n")).remarks == []


def test_an_ending_that_nothing_is_known_of(tmp_path):
    assert read_file(write(tmp_path / "rows", ROWS)).documents == TEXTS
    found = read_file(write(tmp_path / "a.ipynb", '{\n "cells": []\n}'))
    assert found.documents == ['{\n "cells": []\n}'] and "'.ipynb'" in found.remarks[0]
    assert read_file(write(tmp_path / "notes", "text")).remarks == []


def test_tables_may_be_compressed_too(tmp_path):
    whole = columns(tmp_path / "a.parquet", pa.array(TEXTS)).read_bytes()
    assert read_file(write(tmp_path / "a.parquet.gz", gzip.compress(whole, mtime=0))).documents == TEXTS


def test_numbers_beside_the_text_may_be_anything(tmp_path):
    rows = '{"text": "a", "id": ' + "9" * 5000 + '}\n{"text": "b", "x": NaN, "y": 1e9999}\n'
    assert read_file(write(tmp_path / "a.jsonl", rows)).documents == ["a", "b"]


def test_a_csv_field_may_be_a_whole_document_and_the_limit_is_given_back(tmp_path):
    before = csv.field_size_limit()
    assert len(read_file(write(tmp_path / "a.csv", f'text\n"{"x" * 300_000}\n"""\n')).documents[0]) == 300_002
    assert csv.field_size_limit() == before


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", ROWS + '{"text": "a", "x": ' + DEEP + "}", r"a.jsonl', line 41: JSON nested too deeply"),
        ("a.jsonl", '{"text": "a", "x": ' + DEEP + "}\n" + ROWS, r"a.jsonl', line 1: JSON nested too deeply"),
        ("a.json", DEEP, r"a.json': JSON nested too deeply"),
        ("a.jsonl", ROWS + '{"text": "a", "text": "b"}\n', r"line 41: the field 'text' stands there twice"),
        ("a.json", '[{"text": "a", "text": "b"}]', r"the field 'text' stands there twice"),
        ("a.jsonl", ROWS + '{"text": ["a"]}\n', r"line 41: field 'text' must be a string, this is list"),
        ("a.json", '[{"text": "a"},\n {"text": }]', r"a.json', line 2: not JSON \(Expecting value, column 11\)"),
        ("a.csv", "id,text\n1,a\n2,b,c\n", r"a.csv', line 3: 3 fields, but 2 in the header"),
        ("a.csv", "text,text\na,b\n", r"2 columns are called 'text'"),
        ("a.csv", 'text\n"a\n', r"a.csv', line 2: not CSV \(unexpected end of data\)"),
        ("a.csv", b"text\ncaf\xe9\n", r"a.csv' is not UTF-8 text: byte 8 is 0xe9"),
        ("a.tsv", 'text\tid\n"a" b\t1\n', r"a.tsv', line 2: not CSV"),
        ("a.jsonl.gz", gzip.compress(ROWS.encode(), mtime=0)[:90], r"not a readable gzip file \(Truncated"),
        ("a.jsonl.xz", lzma.compress(ROWS.encode())[:90], r"not a readable xz file"),
        ("a.jsonl.gz", ROWS, r"is called a gzip file and is none"),
        ("a.txt", b"%PDF-1.7\n%\xe2\xe3", r"a.txt' is a PDF: save its text"),
        ("a.txt", b"{\\rtf1 text}", r"is a rich text \(RTF\) file"),
        ("a.pkl", pickle.dumps({"text": "a"}), r"is a pickle"),
        ("a.db", b"SQLite format 3\0", r"is an SQLite database"),
        ("a.bin", b"\x20" + b"\0" * 7 + b'{"x": 1}', r"is a safetensors file"),
        ("a.gguf", b"GGUF\3\0\0\0", r"is a GGUF file"),
        ("a.txt", b"7z\xbc\xaf\x27\x1c\0", r"is a 7z archive: unpack it"),
        ("a.txt", "hello\n".encode("utf-16"), r"is text in UTF-16: convert it to UTF-8 \(iconv -f UTF-16 "),
        ("a.jsonl", ROWS.encode("utf-16-le"), r"is text in UTF-16LE"),
        ("a.bin", bytes(range(256)) * 4, r"no text in any encoding: give the text"),
        ("a.exe", b"MZ\x90\0" + b"\0\xff" * 50, r"is a program"),
        ("a.jsonl", '{"text": null}\n{"text": ""}\n', r"'text' holds no text \(1 rows are null, 1 empty\)"),
        ("a.csv", "id,text\n1,\n", r"'text' holds no text \(0 rows are null, 1 empty\)"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer.*git lfs pull"),
    ],
)
def test_what_is_refused_is_named_with_its_place(name, content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_file(write(tmp_path / name, content))


def test_archives_are_named(tmp_path):
    for inside, message in (
        ("a.txt", "a zip archive"),
        ("word/document.xml", r"a Word document"),
        ("x/data.pkl", "PyTorch"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(inside, "text")
        with pytest.raises(InputError, match=message):
            read_file(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(InputError, match="is a tar archive: unpack it"):
        read_file(tmp_path / "a.tar.gz")


def test_a_text_may_begin_like_another_format(tmp_path):
    for text in ("GGUF is a format.", "ORC and elf", "PAR1 for the course", "RIFF raff", "ID3 tags", "PK"):
        assert read_file(write(tmp_path / "a.txt", text)).documents == [text]


LATIN = pa.array([b"fine"] * 50 + [b"caf\xe9 au lait, and more of it"]).view(pa.string())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LATIN, r"column 'text' is not UTF-8 text in row 51"),
        (LATIN.cast(pa.large_string()), r"column 'text' is not UTF-8 text in row 51"),
        (pa.DictionaryArray.from_arrays(pa.array([50]), LATIN), r"a.parquet'.* UTF"),
        (pa.array([["a"]]), r"column 'text' must hold strings, it holds list<"),
        (pa.array([b"a"]), r"column 'text' must hold strings, it holds binary"),
        (pa.array([1, 2]).dictionary_encode(), r"column 'text' must hold strings, it holds int64"),
        (pa.array([{"a": "b"}]), r"column 'text' must hold strings, it holds struct<"),
    ],
)
def test_columns_that_are_no_text_are_named(values, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_file(columns(tmp_path / "a.parquet", values))


def test_damaged_tables_are_one_sentence(tmp_path):
    whole = columns(tmp_path / "a.parquet", pa.array(TEXTS)).read_bytes()
    for content in (whole[:200], whole[:30] + b"\xff" * 40 + whole[70:], whole[:-8] + b"\xff\xff\xff\x7fPAR1"):
        with pytest.raises(InputError, match=r"b.parquet' is not a readable parquet file \([^\n]*\): make or fetch"):
            read_file(write(tmp_path / "b.parquet", content))
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "c.parquet")
    with pytest.raises(InputError, match="2 columns are called 'text'"):
        read_file(tmp_path / "c.parquet")


def test_zero_bytes_in_a_text_are_no_other_encoding(tmp_path):
    assert read_file(write(tmp_path / "a.txt", b"a\0b\n" * 100)).documents == ["a\0b\n" * 100]
