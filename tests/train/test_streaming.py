"""A run on a text that is read while it is trained on."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.storage import read_json
from loopscale.train import DataConfig, train
from tests.train.conftest import write_stream
from tests.train.test_resumption import KillAt


@pytest.fixture
def streamed(run_config, tmp_path):
    data = {"corpus": str(write_stream(tmp_path)), "stream": True}
    return lambda out, **train: run_config(out, data=data, **train)


def lines(config):
    return read_json(Path(config.out, "training.json"), dict)["history"][:-1]


def test_a_stopped_run_goes_on_with_the_very_next_window(streamed, unchecked_shapes, capsys):
    whole, stopped = streamed("whole", max_steps=5, micro_batches=2), streamed("stopped", max_steps=5, micro_batches=2)
    train(whole, quiet=True)
    train(stopped, [KillAt(3)], quiet=True)
    train(stopped, quiet=True)
    assert lines(stopped) == lines(whole)
    ours, theirs = (load_file(Path(config.out, "model.safetensors")) for config in (whole, stopped))
    assert all(theirs[name].equal(weight) for name, weight in ours.items())
    assert main(["audit", whole.out, "--windows=2"]) in (0, 3)
    assert "of the valid split of stream" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_steps": None}, r"give train\.max_steps"),
        ({"workers": 1}, "leave out workers"),
    ],
)
def test_what_a_stream_cannot_do_is_said_first(streamed, changes, said):
    with pytest.raises(InputError, match=said):
        streamed("out", **changes)


def test_words_are_fitted_on_a_whole_text(run_config):
    with pytest.raises(InputError, match="fitted on the whole text"):
        run_config(data={"stream": True, "tokenizer": "words"})
    assert not DataConfig().stream
