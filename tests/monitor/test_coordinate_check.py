import json
import math

import pytest
import torch
from torch import nn

from loopscale.cli.main import main
from loopscale.errors import InputError
from loopscale.monitor import check_figure, check_table, loop_check
from tests.helpers import tiny_config
from tests.monitor.loops import TheirLoop


@pytest.fixture(scope="module")
def grown():
    return loop_check(tiny_config(), (16, 32), (2, 4), (1e-3, 3e-2), steps=3)


def test_a_blind_residual_loop_is_not_steady(grown):
    assert len(grown.points) == 2 * 2 * 2 * 3 and not grown.steady
    calm, wild = grown.verdicts
    assert wild.over_steps > calm.over_steps and any("times in 2 updates" in said for said in wild.complaints)
    reading = grown.last(32, 4, 1e-3)
    assert calm.over_loops == pytest.approx(reading.scale[-1] / reading.scale[0])
    narrow = grown.last(16, 4, 1e-3)
    assert calm.width_slope == pytest.approx(math.log(reading.scale[-1] / narrow.scale[-1]) / math.log(2))


def test_a_recurrence_that_normalises_is_steady():
    config = tiny_config(recurrence="rmsnorm", norm_placement="sandwich", init="normal")
    check = loop_check(config, (16, 32), (2, 4), (1e-4,), steps=2)
    assert check.verdicts[0].over_loops < 2 and check.steady, check.verdicts


def test_table_and_figure_show_it(grown):
    assert [row[0] for row in check_table(grown).rows] == ["0.001", "0.03"]
    titles = [axis.get_ylabel() for axis in check_figure(grown).axes]
    assert titles[0] == "RMS of the state" and len(titles) == 4


def test_a_model_made_elsewhere_and_one_that_breaks():
    def build(width, loops):
        return TheirLoop(loops, width)

    def loss(model, batch):
        value = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
        return value if model.loops < 3 else value * torch.nan

    ids = torch.randint(0, 23, (2, 8))
    fine = loop_check(build, (8,), (2,), (1e-3,), 2, state="core.1", loss=loss, batch=ids)
    assert fine.verdicts[0].width_slope is None and fine.verdicts[0].turn is None
    broken = loop_check(build, (8,), (3,), (1e-3,), 2, state="core.1", loss=loss, batch=ids)
    assert broken.verdicts[0].complaints == ("the state or the loss is not finite",)
    check_figure(broken)
    with pytest.raises(InputError, match="needs widths, loops, rates"):
        loop_check(build, (8,), (2,), (1e-3,))


@pytest.mark.parametrize(
    ("build", "loss", "said"),
    [
        (lambda width, loops: TheirLoop(3, width), "mean", "3 states at loops 2 and at loops 4"),
        (lambda width, loops: TheirLoop(loops, 8), "mean", "8 channels at width 8 and at width 16"),
        (lambda width, loops: width, "mean", "returned int"),
        (lambda width, loops: TheirLoop(loops, width), "abs", r"returned \(2, 8, 23\)"),
    ],
)
def test_a_model_that_does_not_follow_is_told_of(build, loss, said):
    ids = torch.randint(0, 23, (2, 8))
    with pytest.raises(InputError, match=said):
        loop_check(
            build, (8, 16), (2, 4), (1e-3,), 2, state="core.1", loss=lambda m, x: getattr(m(x), loss)(), batch=ids
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": (12,)}, "whole number of heads"),
        ({"rates": (math.nan,)}, "above 0"),
        ({"steps": 1}, "at least 2"),
        ({"rates": (-1.0,)}, "above 0"),
    ],
)
def test_bad_input_is_told(options, said):
    with pytest.raises(InputError, match=said):
        loop_check(tiny_config(), **{"widths": (16,), "loops": (2,), **options})


def test_the_command_judges_a_file_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_config().save_pretrained(tmp_path)
    words = ["check", "config.json", "--widths", "16", "--loops", "2", "--steps", "2", "--learning_rates", "1e-3"]
    assert main([*words, "--json", "check.json"]) in (0, 3)
    assert (tmp_path / "loop-check.png").is_file() and "0.001" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "check.json").read_text())["points"]) == 2
    assert main(["check", "no.json"]) == 2
    assert "no preset of that name" in capsys.readouterr().err
