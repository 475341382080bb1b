import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from loopscale.files import plain, write_json


@dataclass(frozen=True)
class Record:
    name: str
    values: tuple[float, ...]
    extra: dict[str, Any] = field(default_factory=dict)


def test_plain_values_are_what_json_has():
    record = Record("a", (1.0, math.nan, math.inf), {"more": Record("b", ())})
    expected = {"name": "a", "values": [1.0, None, None], "more": {"name": "b", "values": []}}
    assert plain({1: record, "x": [record]}) == {"1": expected, "x": [expected]}
    assert json.loads(json.dumps(plain(record), allow_nan=False)) == expected


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": "×"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "×"}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
