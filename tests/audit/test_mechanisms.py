"""Parts that only tests know go through every measurement, however much of a call they read."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from loopscale.audit import audit, intervene, loop_curves, scale, search, static_verdict
from loopscale.evaluate import depth_curve
from loopscale.facts import default_facts
from loopscale.halting import RULES, trace_exits
from loopscale.objective import logit_losses
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


class Coda(nn.Module):
    """A model of somebody else whose readout and gate read the input again."""

    def __init__(self, says=False):
        super().__init__()
        self.inner = tiny_model(exit_gate=True).double()
        self.num_loops, self.supervision, self.reads_received = 3, "exit_gate", False
        if says:
            self.facts = self._facts

    def context(self, tokens):
        return replace(self.inner.context(tokens), tokens=tokens, injected=self.inner.embed(tokens))

    def embed(self, input_ids, context):
        return context.injected

    def step(self, h, k, context):
        return self.inner.step(h, k)

    def carry(self, z, k, context, h):
        return z

    def readout(self, z, k, context):
        return self.inner.lm_head(z + context.injected)

    def exit_probability(self, z, k, context, h):
        return self.inner.exit_probability(z + context.injected, k)

    def _facts(self):
        return replace(default_facts(self), readings={"trained": self._losses})

    def _losses(self, z, k, labels, context):
        return logit_losses(self.readout(z, k, context), labels)


@pytest.mark.parametrize("says", [False, True])
def test_a_readout_that_reads_the_context_is_measured(says):
    torch.manual_seed(0)
    model, ids = Coda(says), BATCHES[0][:, :-1]
    report = audit(model, BATCHES[:1], coordinates=[scale])
    curve = depth_curve(model, BATCHES[:1], 3)
    cost = intervene(model, BATCHES[:1], 3)
    trace = trace_exits(model, BATCHES[:1], [RULES["exit_gate"]])
    with torch.no_grad():
        e = z = model.inner.embed(ids)
        for k in range(3):
            z = model.inner.step(z, k)
            logits = model.inner.lm_head(z + e)
            expected = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), BATCHES[0][:, 1:].flatten()))
            assert curve[k].cross_entropy == pytest.approx(expected)
            assert report.cross_entropy[k] == cost.cross_entropy["none"][k] == pytest.approx(expected)
            if k == 0:
                gate = model.inner.exit_probability(z + e, 0)
                torch.testing.assert_close(trace.scores["exit_gate"][0], gate, check_dtype=False)
    assert report.coordinates["scale"].seen_by["exit gate"]
