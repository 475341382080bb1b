"""Other people's models, as this library loads them."""

import json

import numpy as np
import torch

from loopscale.audit import audit, loop_curves
from loopscale.convert import from_ouro
from tests.adapters.toy_loop import VOCAB, ToyLoop
from tests.golden import DATA


def test_an_adapter_tells_its_trained_depth_and_supervision():
    model = ToyLoop().eval()
    model.num_loops = 5
    batches = [torch.randint(0, VOCAB, (2, 13)) for _ in range(2)]
    report = audit(model, batches)
    assert (report.num_loops, report.supervision, report.supervised_loops) == (3, "terminal", (3,))
    # the injected input does not scale with the state, so a loss behind the coda's norms sees its scale
    assert report.coordinates["scale"].seen_by == {"cross-entropy": (3,)}
    assert len(loop_curves(model, batches, 9).scale) == 9


def test_an_ouros_norm_takes_the_scale_out_of_the_loop():
    arrays = dict(np.load(DATA / "ouro_tiny.npz"))
    weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w/")}
    model = from_ouro(weights, json.loads(str(arrays["config"])))
    report = audit(model, [torch.from_numpy(arrays["input_ids"])])
    scale = report.coordinates["scale"]
    assert (scale.verdict, scale.removed_by) == ("removed", "carry")
