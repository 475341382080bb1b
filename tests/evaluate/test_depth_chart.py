import math

import pytest
import torch

from loopscale.evaluate import DepthCurve
from loopscale.evaluate.display import CUT, depth_chart


def curve(*losses):
    tokens = torch.tensor([4.0, 4.0], dtype=torch.float64)
    sums = torch.tensor(losses, dtype=torch.float64)[:, None] * tokens * torch.tensor([0.9, 1.1], dtype=torch.float64)
    return DepthCurve("trained", 2, sums, torch.ones_like(sums), tokens)


def test_an_exploding_model_leaves_the_others_to_be_told_apart():
    left, _ = depth_chart({"calm": curve(2.0, 1.0, 1.1), "wild": curve(3.0, 2.0, 60.0)}).panels
    assert left.y.end == CUT * math.exp(2.0)
    calm, wild = left.series
    assert calm.y == pytest.approx([math.exp(x) for x in (2.0, 1.0, 1.1)])
    assert [state for _, _, state in left.points(wild)] == ["drawn", "drawn", "beyond"]


def test_nothing_is_cut_where_nothing_explodes():
    chart = depth_chart({"calm": curve(2.0, 1.0, 1.1)})
    assert {state for panel in chart.panels for s in panel.series for _, _, state in panel.points(s)} == {"drawn"}


def test_an_error_band_stays_above_zero():
    left, _ = depth_chart({"unsure": curve(2.0, 20.0, 30.0)}).panels
    assert min(low for low, _ in left.series[0].reach_y) > 0
