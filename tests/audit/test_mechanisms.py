"""Parts that only tests know go through every measurement, however much of a call they read."""

import pytest
import torch

from loopscale.audit import audit, intervene, loop_curves, scale, search, static_verdict
from loopscale.evaluate import depth_curve
from tests.helpers import tiny_model

BATCHES = [torch.arange(44).view(2, 22) * 5 % 31, torch.arange(44).view(2, 22) * 3 % 31]
READS = {"recurrence": "mixing", "injection": "add"}
OURS = {"recurrence": "gated", "injection": "linear"}


@pytest.mark.usefixtures("mechanisms")
def test_a_carry_that_reads_k_and_h_is_audited():
    report = audit(tiny_model(**READS).double(), BATCHES)
    scale = report.coordinates["scale"]
    assert scale.verdict == "blind_spot" == static_verdict(tiny_model(**READS).config)["scale"].verdict
    assert max(scale.visibility) < 1e-6
    assert min(scale.retention) > 0.1


@pytest.mark.usefixtures("mechanisms")
def test_a_readout_and_a_penalty_with_arguments_are_seen():
    power = audit(tiny_model(readout={"kind": "power", "alpha": 0.5}).double(), BATCHES)
    assert power.coordinates["scale"].verdict == "visible"
    penalised = audit(tiny_model(penalties=[{"kind": "norm", "coefficient": 0.1}]).double(), BATCHES)
    assert penalised.coordinates["scale"].verdict == "visible"


@pytest.mark.usefixtures("mechanisms")
def test_the_gate_of_a_model_whose_carry_reads_h_is_audited():
    report = audit(tiny_model(**READS, supervision="exit_gate").double(), BATCHES)
    assert report.coordinates["scale"].verdict == "visible"


@pytest.mark.usefixtures("mechanisms")
def test_curves_and_interventions_run_the_whole_model():
    model = tiny_model(**READS).double()
    curve = depth_curve(model, BATCHES, 5)
    cost = intervene(model, BATCHES, 5)
    norms = loop_curves(model, BATCHES, 5).norm
    for k, exit_ in enumerate(curve):
        assert cost.cross_entropy["none"][k] == pytest.approx(exit_.cross_entropy)
        assert norms[k] == pytest.approx(exit_.norm)


def test_one_more_loop_of_a_model_that_reads_input_and_state_again_keeps_what_differences_say():
    model = tiny_model(**OURS).double()
    ids = BATCHES[0][:, :-1]
    report = audit(model, BATCHES[:1], coordinates=[scale]).coordinates["scale"]
    with torch.no_grad():
        context = model.context(ids)
        received = model.embed(ids, context)
        for k in range(3):
            z = model.step(received, k, context)

            def after(factor, z=z, k=k, h=received):
                return model.step(model.carry(factor * z, k, context, h), k + 1, context).square().mean(-1).sqrt()

            step = 1e-5  # every token moved along its own scale, by a share of it
            slope = (after(1 + step) - after(1 - step)) / (2 * step * z.square().mean(-1).sqrt())
            assert report.retention[k] == pytest.approx(float(slope.mean()), rel=1e-5)
            received = model.carry(z, k, context, received)


def test_directions_of_a_model_that_reads_input_and_state_again_are_searched():
    found = search(tiny_model(**OURS).double(), BATCHES)
    assert found.tokens == found.held_out_tokens == 42
