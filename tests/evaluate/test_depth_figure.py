import math

import numpy as np
import torch

from loopscale.evaluate import DepthCurve
from loopscale.evaluate.display import CUT, depth_figure


def curve(*losses):
    tokens = torch.tensor([4.0, 4.0], dtype=torch.float64)
    sums = torch.tensor(losses, dtype=torch.float64)[:, None] * tokens * torch.tensor([0.9, 1.1], dtype=torch.float64)
    return DepthCurve("trained", 2, sums, torch.ones_like(sums), tokens)


def test_an_exploding_model_leaves_the_others_to_be_told_apart():
    left = depth_figure({"calm": curve(2.0, 1.0, 1.1), "wild": curve(3.0, 2.0, 60.0)}).axes[0]
    assert left.get_ylim()[1] == CUT * math.exp(2.0)
    assert "cut off" in left.get_ylabel()
    assert np.allclose(left.lines[0].get_ydata(), np.exp([2.0, 1.0, 1.1]))


def test_nothing_is_cut_where_nothing_explodes():
    left = depth_figure({"calm": curve(2.0, 1.0, 1.1)}).axes[0]
    assert left.get_ylabel() == "perplexity"
    assert left.get_ylim()[1] > math.exp(2.0)


def test_an_error_band_stays_above_zero():
    left = depth_figure({"unsure": curve(2.0, 20.0, 30.0)}).axes[0]
    assert left.collections[0].get_paths()[0].vertices[:, 1].min() > 0
