"""YAML that stands for too much, or for what nobody meant, is told before anything is built of it."""

import time

import pytest

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.storage import check_yaml

LINES = [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = "\n".join(["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", *LINES])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]", "an alias that holds itself"),
        ("a: " + "9" * 5000, "a number too long to read"),
        ("a: 1\nb: {c: 1, c: 2}", "names 'c' twice"),
        ("[" * 3000, "nests lists or values too deep"),
    ],
)
def test_what_must_not_be_built_is_told_at_once(text, said, tmp_path, capsys):
    began = time.process_time()
    with pytest.raises(InputError, match=rf"^a\.yaml .*{said}"):
        check_yaml(text, "a.yaml")
    (tmp_path / "a.yaml").write_text(text)
    assert main(["audit", "--config", str(tmp_path / "a.yaml")]) == 2
    assert said in capsys.readouterr().err
    assert time.process_time() - began < 10


@pytest.mark.parametrize("text", ["", "a: &a {b: 1}\nc: {<<: *a, b: 2}\nd: *a", "{", "- 1\n- [2]", "a: 1e-3"])
def test_the_rest_is_left_to_who_reads_it(text):
    check_yaml(text, "a.yaml")
