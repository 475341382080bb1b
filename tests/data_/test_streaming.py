"""Streams of files here: each process its share, packed in order, gone on with at the very next window."""

import shutil
from itertools import islice, takewhile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopscale import InputError
from loopscale.data import StreamedWindows, load_stream

LENGTH = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for i in range(2):
        texts = [f"shard {i} text {j} " + "loops of steps " * (j % 5) for j in range(150)]
        pq.write_table(pa.table({"text": [*texts, None, ""]}), folder / f"part-{i}.parquet", row_group_size=40)
    return folder


def windows(shards, rank=0, processes=1):
    data = load_stream(str(shards), "bytes", sequence_length=LENGTH, rank=rank, processes=processes)
    assert isinstance(data.train, StreamedWindows)
    return data.train


def rows(stream, count=None):
    return [row.tolist() for row in islice(iter(stream), count)]


def one_pass(stream):
    return [row.tolist() for row in takewhile(lambda _: stream.epoch == 0, iter(stream))]


def text_of(found):
    return bytes(token for row in found for token in row[:-1]).decode()


def test_a_stream_is_its_documents_in_order_without_those_that_are_held_out(shards):
    data = load_stream(str(shards), "bytes", sequence_length=LENGTH)
    told = text_of(one_pass(data.train))
    held = bytes(data.valid.tokens.ids).decode().splitlines()
    assert len(held) >= 1 and not any(line in told.splitlines() for line in held)
    first = [line for i in range(2) for line in told.splitlines() if line.startswith(f"shard {i}")]
    assert len(first) == 300 - len(held) and told.splitlines()[:3] == first[:3]


@pytest.mark.parametrize("after", [1, 37, 399, 1100])
def test_a_stream_goes_on_with_the_very_next_window(shards, after):
    stream = windows(shards)
    going = iter(stream)
    for _ in range(after):
        next(going)
    state = stream.state_dict()
    again = windows(shards)
    again.load_state_dict(state)
    assert rows(again, 50) == [next(going).tolist() for _ in range(50)]


def test_processes_share_the_documents(shards):
    alone = set(text_of(one_pass(windows(shards))).splitlines())
    parts = [set(text_of(one_pass(windows(shards, rank, 2))).splitlines()) for rank in (0, 1)]
    assert all(len(part) > 100 for part in parts)
    assert len(parts[0] & parts[1]) <= 1 and len(alone - parts[0] - parts[1]) <= 2  # the last words fill no window


def test_it_begins_anew_after_its_end(shards):
    stream = windows(shards)
    first = one_pass(stream)
    assert rows(windows(shards), 2 * len(first))[: len(first)] == first and stream.epoch == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "no such file or folder: 'nothing', and no name"), ("owner/name", "is streamed from the hub, and")],
)
def test_what_cannot_be_streamed_is_one_sentence(name, said):
    with pytest.raises(InputError, match=said):
        load_stream(name, "bytes", sequence_length=LENGTH)


def test_files_of_several_kinds_are_refused(shards, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.parquet").write_bytes((shards / "part-0.parquet").read_bytes())
    with pytest.raises(InputError, match="give files of one kind"):
        load_stream(str(tmp_path), "bytes", sequence_length=LENGTH)


def stream_in(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.{'txt' if name == 'notes' else 'jsonl'}").write_text(text)
    return load_stream(str(folder), "bytes", sequence_length=LENGTH)


LINES = "".join(f'{{"text": "document {i} of a stream"}}\n' for i in range(400))


def test_what_a_stream_leaves_out_is_named(tmp_path):
    data = stream_in(tmp_path, part=LINES, notes="a text that nobody streams")
    assert any("notes.txt is not streamed" in note for note in data.notes)


@pytest.mark.parametrize("bad", ['{"text": 5}\n', '{"text": "a\n'])
def test_what_is_no_text_in_a_stream_is_a_sentence(tmp_path, bad):
    with pytest.raises(InputError):
        list(islice(iter(stream_in(tmp_path, part=bad * 300).train), 3))


def test_a_file_may_be_called_like_a_pattern(tmp_path):
    (tmp_path / "a[1].jsonl").write_text(LINES)
    assert rows(load_stream(str(tmp_path), "bytes", sequence_length=LENGTH).train, 2)


def put(folder, **tables):
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="none")
    return folder


def texts(name="text", rows=120, **more):
    return pa.table({name: [f"row {i} of words" for i in range(rows)], **{key: [1] * rows for key in more}})


def test_files_of_nothing_are_named_and_left_out_and_other_columns_need_not_be_alike(tmp_path):
    folder = put(tmp_path, a=texts(), b=texts(rows=0), c=texts(score=True))
    (folder / "d.parquet").write_bytes(b"")
    data = load_stream(str(folder), "bytes", sequence_length=LENGTH)
    empty = "b.parquet is not streamed: it has no rows.", "d.parquet is not streamed: it is empty."
    assert tuple(note for note in data.notes if "not streamed" in note) == empty
    assert text_of(one_pass(data.train)).count("row 7 of words") == 2


def test_a_file_that_cannot_be_streamed_is_named_before_training_starts(tmp_path):
    folder = put(tmp_path, a=texts(), b=texts("content"))
    with pytest.raises(InputError, match=r"b\.parquet' has no column 'text', which the files before it have"):
        load_stream(str(folder), "bytes", sequence_length=LENGTH)
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.parquet' is not a readable parquet file"):
        load_stream(str(folder), "bytes", sequence_length=LENGTH)


def test_a_file_that_breaks_off_in_the_middle_of_a_stream_is_named(tmp_path):
    for name, text in (("a", '{"text": "some words to train on"}\n' * 99), ("b", '{"other": "words"}\n' * 99)):
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "valid.jsonl").write_text('{"text": "some words to validate on"}\n')
    data = load_stream(str(tmp_path), "bytes", sequence_length=LENGTH)
    with pytest.raises(InputError, match=r"b\.jsonl', line 1: no field 'text'"):
        one_pass(data.train)


def test_what_is_said_of_a_stream_is_logged_unless_quiet(shards, tmp_path, caplog):
    folder = tmp_path / "text"
    shutil.copytree(shards, folder)
    (folder / "notes.txt").write_text("not a row")
    load_stream(str(folder), "bytes", sequence_length=LENGTH, quiet=True)
    assert not caplog.messages
    load_stream(str(folder), "bytes", sequence_length=LENGTH)
    assert any("notes.txt is not streamed" in message for message in caplog.messages)
