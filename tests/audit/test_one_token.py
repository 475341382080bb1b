"""No verdict and no figure rests on one token, whatever the rounding of that token says."""

import json

import pytest
import torch
from torch import nn

from loopscale import InputError
from loopscale.audit import audit, intervene, loop_curves, search
from loopscale.audit.measurement.derivatives import exit_gradient, mean_alignment
from tests.audit.test_foreign_models import VOCAB, Base, batches
from tests.helpers import tiny_model


class Settled(Base):
    """Behind a norm, and sure of token 0: where it comes next its loss is 0 and its gradient a denormal number."""

    def readout(self, z, k):
        logits = super().readout(z, k)
        sure = torch.zeros_like(logits)
        sure[0, :3, 0] = 100.0  # exp(-100) is below the smallest normal number
        return logits + sure


def settled_batches():
    data = batches(2)
    for ids in data:
        ids[0, 1:4] = 0
    return data


class Faint(Base):
    """Token 0 has a state so short that the epsilon of every norm stands before it."""

    def __init__(self, length=1e-5, **options):
        super().__init__(**options)
        with torch.no_grad():
            self.tokens.weight[0] *= length
        self.down.bias = None

    def step(self, h, k):
        return h * (1 + 0.1 * torch.tanh(self.down(self.up(self.norm(h)))))


def with_one_faint(count=1):
    data = [ids.clamp_min(1) for ids in batches(count)]
    data[0][0, 2] = 0
    return data


def verdicts(report):
    return {name: (c.verdict, c.seen_by, c.removed_by) for name, c in report.coordinates.items()}


def normed(model):
    model.carry = lambda z, k: model.norm(z)
    return model


@pytest.mark.parametrize(
    "build, data",
    [
        (Base, batches),
        (Settled, settled_batches),
        (Faint, with_one_faint),
        (lambda: normed(Faint(1e-3)), with_one_faint),
        (lambda: Faint(1e-30), with_one_faint),
        (lambda: Faint(0.0), with_one_faint),
        (lambda: tiny_model(readout="raw"), lambda: [torch.randint(0, 31, (1, 17))]),
        (lambda: tiny_model(recurrence="rmsnorm"), lambda: [torch.randint(0, 31, (1, 17))]),
    ],
)
def test_a_verdict_stands_under_dropping_any_one_token(unchecked_shapes, build, data):
    model, (ids, *rest) = build(), data()
    whole = verdicts(audit(model, [ids, *rest]))
    labels = ids[:, 1:]
    for place in range(labels.numel()):
        without = labels.clone()
        without.view(-1)[place] = -100
        assert verdicts(audit(model, [(ids[:, :-1], without), *rest])) == whole, place


def test_a_gradient_of_rounding_is_left_out_and_counted():
    report = audit(Settled(), settled_batches())
    scale = report.coordinates["scale"]
    assert scale.verdict == "blind_spot" and max(scale.visibility) < 1e-5
    assert scale.left_out["cross-entropy"] == (6, 6, 6)
    assert any("6 at loop 1" in note for note in report.notes)
    assert json.loads(json.dumps(report.to_dict()))["coordinates"]["scale"]["left_out"]["cross-entropy"] == [6, 6, 6]
    found = search(Settled(), settled_batches())
    assert any("left out" in note for note in found.notes) and max(found.directions[0].vector) <= 1


def test_one_token_that_sees_is_told_and_does_not_decide():
    model, data = Faint(1e-4), with_one_faint()
    report = audit(model, data)
    scale = report.coordinates["scale"]
    assert max(scale.visibility) > 1e-3 and scale.verdict == "blind_spot" and scale.one_token_decides
    assert any("one token alone" in note for note in report.notes)


def test_a_reading_of_the_monitor_leaves_out_the_same_tokens():
    model, (ids, _) = Settled(), settled_batches()
    labels = ids[:, 1:].clone()
    labels[1] = -100
    z = model.step(model.embed(ids[:, :-1]), 0).detach()
    share, read = mean_alignment(*exit_gradient(model, z, 0, labels), z, labels)
    assert float(share) < 1e-5 and 0 < int(read) < int((labels != -100).sum())
    nothing = torch.full_like(labels, -100)
    share, read = mean_alignment(*exit_gradient(model, z, 0, nothing), z, nothing)
    assert share.isnan() and read == 0


def test_losses_of_zero_everywhere_are_told():
    class Sure(Base):
        def readout(self, z, k):
            return super().readout(z, k) + 200 * nn.functional.one_hot(torch.tensor(0), VOCAB)

    zeros = torch.zeros(2, 6, dtype=torch.long)
    for measure in (audit, search):
        with pytest.raises(InputError, match="gradient of exit 1 is zero at every token"):
            measure(Sure(), [zeros, zeros])


def test_batches_of_one_token_count_like_a_whole_batch():
    model = Settled().double()
    model.step = lambda h, k: Base.step(model, h, k)
    ids = settled_batches()[0][:1]
    pairs = [(ids[:, :-1], ids[:, 1:])]
    alone = []
    for place in range(ids.shape[1] - 1):
        labels = torch.full_like(ids[:, 1:], -100)
        labels[:, place] = ids[:, place + 1]
        alone.append((ids[:, :-1], labels))
    whole, parts = audit(model, pairs), audit(model, alone)
    assert verdicts(whole) == verdicts(parts)
    assert parts.coordinates["scale"].retention == pytest.approx(whole.coordinates["scale"].retention, rel=1e-9)
    one = audit(model, alone[-1:])
    assert one.tokens == 1 and one.coordinates["scale"].verdict == "blind_spot"


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-6])
def test_curves_and_interventions_stay_finite_where_a_state_has_no_length(length):
    model, data = Faint(length), with_one_faint()
    curves = loop_curves(model, data, 6)
    for figure in (curves.drift, curves.radial_increment, curves.angular_step, curves.product):
        assert max(map(abs, figure)) < 10
    assert curves.directed == (curves.tokens - 1,) * 5
    changed = intervene(model, data)
    for norms in changed.norm.values():
        assert max(norms) < 100
    assert all(abs(cost) < 1 for name in changed.cross_entropy for cost in changed.cost(name))


def test_a_share_of_the_unembedding_null_does_not_explode_where_a_token_has_none():
    report = audit(tiny_model(), [torch.randint(0, 31, (4, 17))])
    assert max(map(abs, report.coordinates["unembedding_null"].retention)) < 10
