import math

import pytest
import torch

from loopscale.evaluate import available
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


def test_a_record_is_of_the_model(records):
    record = records["per_loop-rmsnorm"]["control"]
    assert [exit.exit for exit in record.far] == [8, 16, 64] and record.dynamics == "drifting"
    assert list(record.precisions) == list(available(control.MEASURED_PRECISIONS))
    full, *others = (exits[-1] for exits in record.precisions.values())
    assert len(others) >= 2 and all(0 < abs(other / full - 1) < 0.05 for other in others)
    model = tiny_model(recurrence="rmsnorm")
    ids = torch.randint(31, (2, 8))
    assert control.last_change(model, ids, 40) < control.last_change(model, ids, 2)
