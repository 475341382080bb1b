"""Parameters that a step gives no gradient are known before it, whatever a model is made of: DDP itself is asked."""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from loopscale.train.arguments import unreached
from loopscale.train.depth_schedules import Depth
from tests.helpers import tiny_model
from tests.test_waits import SMALL, TRAINED

WINDOWS = torch.arange(40).view(4, 10) * 7 % 31
UNREAD = [{"exit_gate": True}, {"supervision": "terminal", "num_coda_layers": 1, "exit_gate": True}]
ALWAYS, DRAWN = [Depth(2, 2)], [Depth(1, 1), Depth(3, 1)]
CASES = [
    *((fields, ALWAYS) for fields in (*TRAINED, *UNREAD)),
    *((fields, DRAWN) for fields in (*UNREAD, {"recurrence": "gated"}, {"supervision": "annealed"})),
]


@pytest.fixture(scope="module")
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group", "unchecked_shapes")
@pytest.mark.parametrize(("fields", "depths"), CASES)
def test_every_part_is_waited_for_where_a_step_reaches_it_and_nowhere_else(fields, depths):
    model = tiny_model(**SMALL, num_loops=2, **fields).train()
    never, sometimes = unreached(model, depths)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in never)
    several = DistributedDataParallel(model, find_unused_parameters=bool(sometimes))
    reached = set()
    for progress in (0.0, 1.0) if model.supervision.changes else (None,):
        for depth in depths:
            asked = {"num_loops": depth.loops, "gradient_loops": depth.with_gradient, "progress": progress}
            # raises where the step before waits for a gradient that never came
            several(
                input_ids=WINDOWS[:, :-1], shift_labels=WINDOWS[:, 1:], supervised_exits_only=True, **asked
            ).loss.backward()
            now = {name for name, p in model.named_parameters() if p.grad is not None}
            assert now >= {name for name, _ in model.named_parameters()} - never - sometimes
            reached |= now
            model.zero_grad(set_to_none=True)
    assert reached.isdisjoint(never) and reached >= sometimes
