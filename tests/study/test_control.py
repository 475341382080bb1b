import math

import pytest
import torch

from loopscale.evaluate import DepthCurve
from loopscale.study.topics import control
from tests.helpers import tiny_model


def curve(*losses):
    nats = torch.tensor(losses, dtype=torch.float64)[:, None] * 10
    return DepthCurve("trained", 2, nats, nats, torch.tensor([10.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("losses", "band"),
    [
        ((2.0, 1.0, 1.005, 1.5, 1.0), (2, 3)),  # the best exit decides, not an equal one behind a worse
        ((1.0, 1.5, 2.0), (1, 1)),
        ((2.0, 1.009, 1.0), (2, 3)),
        ((1.0, math.inf, math.nan), (1, 1)),
    ],
)
def test_the_useful_band_is_a_plateau_around_the_best_exit(losses, band):
    assert control.useful_band(curve(*losses)) == band


@pytest.mark.parametrize(
    ("halfway", "last", "change", "said"),
    [
        (10.0, 10.5, 1e-6, "settling"),
        (10.0, 10.5, 0.3, "marginal"),
        (10.0, 20.0, 1e-6, "drifting"),
        (10.0, 5.0, 1e-6, "drifting"),
        (10.0, math.nan, math.nan, "drifting"),
    ],
)
def test_dynamics_are_told_by_norm_and_change(halfway, last, change, said):
    assert control.dynamics_of(halfway, last, change) == said


def test_a_record_is_of_the_model_and_leaves_it_alone(records):
    record = records["per_loop-rmsnorm"]["control"]
    assert [exit.exit for exit in record.far] == [8, 16, 64] and record.dynamics == "drifting"
    assert list(record.precisions) == ["float32", "bfloat16", "float16", "int8"]
    exits = record.precisions
    assert all(0 < abs(exits[name][-1] / exits["float32"][-1] - 1) < 0.05 for name in ("bfloat16", "float16", "int8"))
    model = tiny_model(recurrence="rmsnorm")
    before = [weight.clone() for weight in model.parameters()]
    control.in_precisions(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    ids = torch.randint(31, (2, 8))
    assert control.last_change(model, ids, 40) < control.last_change(model, ids, 2)
