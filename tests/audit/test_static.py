"""The verdict from a configuration agrees with the one measured on weights."""

from itertools import product

import pytest
import torch

from loopscale.audit import audit, mean, scale, static_verdict, static_warning
from tests.helpers import tiny_config, tiny_model

READOUTS = ["rmsnorm", "layernorm", "raw", "final_rmsnorm"]
RECURRENCES = ["residual", "rmsnorm", "damped"]
SUPERVISIONS = ["terminal", "per_loop", "exit_gate"]
GRID = list(product(READOUTS, RECURRENCES, SUPERVISIONS, [0.0, 0.01]))


@pytest.mark.parametrize("readout, recurrence, supervision, penalty", GRID)
def test_static_and_measured_verdicts_agree(readout, recurrence, supervision, penalty):
    model = tiny_model(
        readout=readout,
        recurrence=recurrence,
        supervision=supervision,
        norm_penalty_coef=penalty,
        rms_norm_eps=0.0,
        num_stack_layers=1,
    ).double()
    measured = audit(model, [torch.randint(0, 31, (2, 9))], coordinates=[scale, mean]).coordinates
    for name, expected in static_verdict(model.config).items():
        got = measured[name]
        assert (got.verdict, got.seen_by, got.removed_by) == (
            expected.verdict,
            expected.seen_by,
            expected.removed_by,
        ), name


@pytest.mark.parametrize(
    "overrides, verdict",
    [
        ({}, "blind_spot"),
        ({"supervision": "terminal"}, "blind_spot"),
        ({"readout": "layernorm"}, "blind_spot"),
        ({"recurrence": "damped"}, "blind_spot"),
        ({"readout": "final_rmsnorm", "supervision": "terminal"}, "blind_spot"),
        ({"readout": "final_rmsnorm", "num_loops": 1}, "blind_spot"),
        ({"exit_gate": True}, "blind_spot"),  # a gate that no loss trains
        ({"readout": "raw"}, "visible"),
        ({"readout": "final_rmsnorm"}, "visible"),
        ({"norm_penalty_coef": 0.01}, "visible"),
        ({"supervision": "exit_gate"}, "visible"),
        ({"recurrence": "rmsnorm"}, "removed"),
        ({"recurrence": "rmsnorm", "supervision": "exit_gate"}, "removed"),
    ],
)
def test_the_verdict_on_scale(overrides, verdict):
    assert static_verdict(tiny_config(**overrides))["scale"].verdict == verdict


def test_loops_that_see_and_remedies_are_named():
    config = tiny_config(readout="final_rmsnorm", loop_weights=[1.0, 0.0, 1.0])
    assert static_verdict(config)["scale"].seen_by == {"cross-entropy": (1,)}
    blind = static_verdict(tiny_config())["scale"]
    assert "norm_penalty_coef" in blind.remedy and "recurrence" in blind.remedy


def test_the_warning_names_what_is_blind_and_is_silent_otherwise():
    assert static_warning(tiny_config(readout="raw")) is None
    assert "the scale of the state" in static_warning(tiny_config())
    both = static_warning(tiny_config(readout="layernorm"))
    assert both.count("blind spot") == 2 and "mean" in both


def test_a_changed_depth_does_not_change_what_was_trained():
    model = tiny_model(readout="final_rmsnorm")
    model.config.num_loops = 5
    report = audit(model.double(), [torch.randint(0, 31, (2, 9))])
    assert report.num_loops == 3 and report.coordinates["scale"].seen_by == {"cross-entropy": (1, 2)}
