import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.errors import InputError
from loopscale.storage import REST, check_writable, from_json, parse_json, plain, read_json, write_json


@dataclass(frozen=True)
class Fit:
    slope: float
    points: int = 3

    @cached_property
    def line(self) -> str:
        return f"x^{self.slope}"


@dataclass(frozen=True)
class Record:
    seed: int
    norm: tuple[float, ...]
    verdict: Literal["visible", "removed"] = "visible"
    fit: Fit | None = None
    by_factor: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError("seeds count from 0.")


WHOLE = {"seed": 1, "norm": [1, 2.5, None], "fit": {"slope": None, "later": [1]}, "by_factor": {"0.1": [1.0]}}


def test_a_record_is_read_by_its_types_and_written_back():
    record = from_json({**WHOLE, "audit": {"x": None}}, Record, "it")
    assert record.norm[:2] == (1.0, 2.5) and math.isnan(record.norm[2])
    assert record.fit is not None and math.isnan(record.fit.slope) and record.fit.points == 3
    assert record.by_factor == {0.1: (1.0,)} and record.more == {"audit": {"x": None}}
    assert record.fit.line == "x^nan"  # computed, so not stored
    assert plain(record) == {
        "seed": 1,
        "norm": [1.0, 2.5, None],
        "verdict": "visible",
        "fit": {"slope": None, "points": 3, "later": [1]},
        "by_factor": {"0.1": [1.0]},
        "audit": {"x": None},
    }


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"seed": True}, "it, seed must be a whole number: mend it."),
        ({"seed": "1"}, "it, seed must be a whole number: mend it."),
        ({"norm": "8"}, "it, norm must be a list: mend it."),
        ({"norm": [1, "4"]}, "it, norm[1] must be a number: mend it."),
        ({"norm": [1, 10**400]}, "it, norm[1] must be a number: mend it."),
        ({"norm": ["a", "b", "c"]}, "it, norm[0] must be a number (2 more like it): mend it."),
        ({"verdict": "blind"}, "it, verdict must be 'visible' or 'removed': mend it."),
        ({"fit": []}, "it, fit must be an object with named values: mend it."),
        ({"fit": {"points": 2}}, "it, fit lacks 'slope': mend it."),
        ({"seed": -1}, "it is refused (seeds count from 0): mend it."),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_place(edit, sentence):
    with pytest.raises(InputError) as told:
        from_json({**WHOLE, **edit}, Record, "it", "mend it")
    assert str(told.value) == sentence


@pytest.mark.parametrize("document", [[], None, 3, "x"])
def test_another_kind_of_document_is_one_sentence(document):
    with pytest.raises(InputError, match=r"^it must be an object with named values: give a file"):
        from_json(document, Record, "it")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not JSON (line 1, column 2"),
        (b"", "is not JSON (line 1, column 1"),
        (b"[" * 100_000, "nests lists or objects more than 200 deep"),
        (b"[" * 300 + b"]" * 300, "nests lists or objects more than 200 deep"),
        (b"1" * 5000, "holds a number too long to read"),
        (b'{"a": 1, "b": {"a": 1, "a": 2}}', "names 'a' twice in one object"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0xff at 0)"),
    ],
)
def test_a_file_that_is_no_document_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as told:
        read_json(path, Record, "write it anew")
    assert str(told.value).startswith(f"{path} {sentence}") and str(told.value).endswith(": write it anew.")


def test_a_place_that_is_no_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "a.json", Record)
    with pytest.raises(InputError, match="is a folder"):
        read_json(tmp_path, Record)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="is no plain file"):
            read_json(tmp_path / "pipe", Record)


def test_a_byte_order_mark_and_foreign_nan_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"seed": 1, "norm": [NaN, -Infinity]}')
    assert math.isnan(read_json(path, Record).norm[0]) and read_json(path, Record).norm[1] == -math.inf


def test_a_file_is_strict_and_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": "×", "nan": [math.nan, (math.inf,)], "half": "\ud83d"})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == before
    assert json.loads(before, parse_constant=pytest.fail) == {"a": "×", "nan": [None, [None]], "half": "\ud83d"}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_sealed_document_tells_a_changed_digit(tmp_path):
    path, value = tmp_path / "a.json", {"loss": [1.25, math.nan], "name": "\ud83d é"}
    write_json(path, value, sealed=True)
    assert read_json(path, dict[str, Any]) == plain(value)
    path.write_text(path.read_text().replace("1.25", "1.24"))
    with pytest.raises(InputError, match=r"a\.json is not as it was written"):
        read_json(path, dict[str, Any])


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a\.json cannot be written"):
        write_json(tmp_path / "a.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "file"]


@pytest.mark.parametrize("name", ["\udcff", "a\0b"])
def test_a_place_no_library_can_name_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(InputError, match=r"--out .* is a name with bytes"):
        check_writable("--out", tmp_path / name)


@pytest.mark.parametrize("name", ["n" * 231, "ä" * 200, "/".join(["folder"] * 700)])
def test_a_name_too_long_is_told_with_its_option(tmp_path, name):
    with pytest.raises(InputError, match=r"^--out .*(bytes, and 230 are the most|cannot be looked at)"):
        check_writable("--out", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_write_clears_what_a_killed_one_left_of_the_same_file(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.json.{ended.pid}").touch()
    (tmp_path / f".b.json.{ended.pid}").touch()
    (tmp_path / f".a.json.{os.getppid()}").touch()
    write_json(tmp_path / "a.json", {})
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"a.json", f".b.json.{ended.pid}", f".a.json.{os.getppid()}"}, "only dead writers of this very file"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("seed", "norm", "verdict", "fit", "by_factor", "later")


@given(st.dictionaries(st.sampled_from(FIELDS), values) | values)
def test_whatever_a_document_holds_it_is_read_or_refused_in_a_sentence(document):
    try:
        record = from_json(document, Record, "it")
    except InputError as error:
        assert str(error).count("\n") == 0
    else:
        again = from_json(json.loads(json.dumps(plain(record), allow_nan=False)), Record, "it")
        assert plain(again) == plain(record)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        parse_json(text, "it")
    except InputError as error:
        assert str(error).count("\n") == 0
