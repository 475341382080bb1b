"""Supervision that changes on the way: known to the trainer, logged, exact on resume, audited as it ends."""

import pytest
import torch

from loopscale import InputError
from loopscale.audit import audit
from loopscale.train import RunConfig, train
from loopscale.train.arguments import unreached
from loopscale.train.depth_schedules import FixedDepth
from tests.helpers import tiny_model
from tests.train.test_resumption import KillAt, history, weights

IDS = torch.arange(24).view(2, 12) * 7 % 31
ANNEALED = {"supervision": {"kind": "annealed", "share": 0.4}}


@pytest.fixture
def annealed(run_config):
    return lambda out="run", **options: run_config(out, ANNEALED, max_steps=10, **{"log_every": 2, **options})


def test_the_last_share_sees_the_last_exit_alone_is_logged_and_resumes_exactly(annealed, run_config):
    whole = train(annealed("whole"), quiet=True)
    assert train(annealed("parts"), [KillAt(7)], quiet=True) is None
    resumed = train(RunConfig.from_dict(annealed("parts").to_dict()), quiet=True)
    assert history(resumed) == history(whole) and torch.equal(weights(resumed), weights(whole))
    lines = [line for line in whole.history if "loss" in line]
    assert [line["terminal_share"] for line in lines] == [0, 0, 0, 1, 1]
    exits = [[k for k in (1, 2, 3) if f"loop_losses/{k}" in line] for line in lines]
    assert exits == [[1, 2, 3]] * 3 + [[3]] * 2
    for line, seen in zip(lines, exits, strict=True):
        assert line["loss"] == pytest.approx(sum(line[f"loop_losses/{k}"] for k in seen) / len(seen), rel=1e-5)
    plain = train(run_config("plain", max_steps=10, log_every=2), quiet=True).history
    assert [line["loss"] for line in plain if "loss" in line][:3] == [line["loss"] for line in lines[:3]]


def test_a_line_of_both_says_how_much_of_it_was_terminal(annealed):
    found = train(annealed(log_every=5, save_every=5), quiet=True).history
    assert [line["terminal_share"] for line in found if "loss" in line] == [0, 0.8]


def test_an_annealed_run_keeps_its_length(annealed):
    train(annealed(), [KillAt(3)], quiet=True)
    run = annealed().to_dict()
    with pytest.raises(InputError, match="max_steps was 10 and is 12, and the supervision annealed depends on it"):
        train(RunConfig.from_dict({**run, "train": {**run["train"], "max_steps": 12}}), quiet=True)


def test_a_forward_takes_the_loss_of_its_time():
    model = tiny_model(**ANNEALED)
    found = [model(IDS, labels=IDS, progress=progress).loss for progress in (None, 0.5, 0.6)]
    other = [tiny_model(supervision=kind) for kind in ("per_loop", "per_loop", "terminal")]
    for loss, one in zip(found, other, strict=True):
        one.load_state_dict(model.state_dict())
        torch.testing.assert_close(loss, one(IDS, labels=IDS).loss)


def test_an_audit_sees_the_exits_of_the_end():
    report = audit(tiny_model(**ANNEALED).double(), [IDS])
    assert (report.supervision, report.supervised_loops) == ("annealed", (3,))


def test_parameters_of_either_time_are_found():
    model = tiny_model(**ANNEALED, readout="final_rmsnorm")
    assert unreached(model, FixedDepth(3).extremes) == (set(), set())
