import json

import pytest

from loopscale.cli.main import main
from tests.helpers import TINY

SIZES = [f"--model.{name}={value}" for name, value in TINY.items() if name != "vocab_size"]


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Run the command on a small text; return its status and its last lines."""
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("a loop and a loop and another one.\n" * 200, encoding="utf-8")

    def run(*words):
        data = [f"--data.corpus={tmp_path / 'text.txt'}", "--data.sequence_length=16", "--train.batch_size=4"]
        every = ["--train.log_every=2", "--train.save_every=2", f"--out={tmp_path / 'run'}"]
        status = main(["train", *SIZES, *data, *every, *words])
        return status, capsys.readouterr().out

    return run


def test_it_says_what_came_out_and_that_there_is_nothing_left_to_do(train, tmp_path):
    status, out = train("--train.max_steps=4")
    assert status == 0
    assert "trained 4 steps" in out and "norm after each loop" in out and "diverged" not in out
    assert json.loads((tmp_path / "run" / "training.json").read_text())["steps"] == 4
    status, out = train("--train.max_steps=4")
    assert status == 0 and "nothing to do" in out and "trained before, for 4 steps" in out


def test_a_run_too_short_for_a_log_line_prints_no_empty_one(train):
    _, out = train("--train.max_steps=1")
    assert "trained 1 steps" in out and "norm after each loop" not in out


def test_a_run_that_diverged_is_told_so(train):
    assert "the run diverged" in train("--train.max_steps=4", "--train.learning_rate=1e30")[1]


def test_a_run_ended_by_its_scale_is_told_so(train):
    _, out = train("--train.max_steps=6", "--train.monitor_every=2", "--train.stop_scale=1e-3")
    assert "ended before its 6 steps, by train.stop_scale" in out
