import math

import pytest
import torch

from loopscale.study.topics.ways import control
from tests.helpers import tiny_model


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
