import json
import math
import weakref

import pytest
import torch

from loopscale.errors import InputError
from loopscale.evaluate import depth_curve, depth_curves, sliding_windows
from loopscale.evaluate.curve import DepthCurve
from loopscale.objective import IGNORED
from loopscale.storage import to_json
from tests.evaluate.models import Injecting, text
from tests.helpers import tiny_model


@pytest.mark.parametrize("readout", ["rmsnorm", "layernorm", "raw", "final_rmsnorm"])
@pytest.mark.parametrize(("recurrence", "injection"), [("residual", "none"), ("rmsnorm", "none"), ("gated", "linear")])
def test_exits_equal_separate_forwards(readout, recurrence, injection):
    model = tiny_model(readout=readout, recurrence=recurrence, injection=injection).double()
    windows = text()
    curve = depth_curve(model, windows.split(4), max_loops=9)
    assert [p.exit for p in curve] == list(range(1, 10))
    for k, point in enumerate(curve, 1):
        out = model(windows[:, :-1], shift_labels=windows[:, 1:], num_loops=k)
        assert abs(point.cross_entropy - out.loop_losses[:, -1].mean().item()) < 1e-10
        assert abs(point.norm - out.loop_norms[:, -1].mean().item()) < 1e-10 * point.norm
        assert point.perplexity == math.exp(point.cross_entropy)


def test_a_model_that_is_not_ours_gets_the_same_curve():
    model, windows = Injecting().double(), text()
    curve = depth_curve(model, windows.split(4), max_loops=5)
    with torch.no_grad():
        h = model.embed(windows[:, :-1])
        for k, point in enumerate(curve):
            z = model.step(h, k)
            expected = torch.nn.functional.cross_entropy(model.readout(z, k).flatten(0, 1), windows[:, 1:].flatten())
            assert abs(point.cross_entropy - expected.item()) < 1e-10
            assert abs(point.norm - z.norm(dim=-1).mean().item()) < 1e-10
            h = model.carry(z, k)
    assert curve.trained_loops == model.num_loops
    assert len(depth_curve(model, [windows])) == 3 * model.num_loops


def test_final_rmsnorm_has_both_readings_from_one_pass():
    model, windows = tiny_model(readout="final_rmsnorm").double(), text()
    curves = depth_curves(model, [windows], max_loops=5)
    assert list(curves) == ["trained", "final"]
    ids, labels = windows[:, :-1], windows[:, 1:]
    states = model(ids, num_loops=5, output_states=True).states
    for k, z in enumerate(states):
        for name, last in (("trained", k == 2), ("final", True)):
            logits = model.readout(z, k, last=last)
            expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
            assert abs(curves[name][k].cross_entropy - expected) < 1e-10
    assert curves["trained"][0].cross_entropy != curves["final"][0].cross_entropy
    assert curves["trained"][2].cross_entropy == curves["final"][2].cross_entropy
    assert depth_curve(model, [windows], 5, reading="final")[0] == curves["final"][0]


def test_an_unknown_reading_is_an_input_error():
    with pytest.raises(InputError, match="did you mean 'trained'"):
        depth_curve(tiny_model(), [text()], reading="traned")


def test_one_pass_and_one_state_at_a_time(monkeypatch):
    model, windows = tiny_model(), text()
    steps, states, alive = [], [], []
    original = type(model).step

    def step(self, h, k, context=None):
        steps.append(k)
        alive.append(sum(state() is not None for state in states))
        z = original(self, h, k, context)
        states.append(weakref.ref(z))
        return z

    monkeypatch.setattr(type(model), "step", step)
    depth_curve(model, [windows], max_loops=12)
    assert steps == list(range(12))
    assert max(alive) == 1  # the state that the loop is given


def test_standard_errors_are_those_of_the_mean_over_windows():
    model, windows = tiny_model().double(), text(windows=20)
    point = depth_curve(model, windows.split(7), 1)[0]
    with torch.no_grad():
        logits = model.readout(next(iter([model.step(model.embed(windows[:, :-1]), 0)])), 0)
    per_window = torch.nn.functional.cross_entropy(logits.mT, windows[:, 1:], reduction="none").mean(-1)
    assert point.cross_entropy_se == pytest.approx(per_window.std().item() / math.sqrt(20))
    assert point.perplexity_se == pytest.approx(point.perplexity * point.cross_entropy_se)


def test_bits_per_byte_and_plain_values():
    curve = depth_curve(tiny_model(), [text()], 2, bytes_per_token=4.0)
    assert curve[0].bits_per_byte == pytest.approx(curve[0].cross_entropy / math.log(2) / 4)
    described = json.loads(to_json(curve.report()))
    assert described["tokens"] == 72
    assert [e["perplexity"] for e in described["exits"]] == [p.perplexity for p in curve]


def test_ignored_labels_are_not_counted():
    model, windows = tiny_model().double(), text()
    inputs, labels = windows[:, :-1], windows[:, 1:].clone()
    labels[:, :5] = IGNORED
    point = depth_curve(model, [(inputs, labels)], 2)[1]
    states = model(inputs, num_loops=2, output_states=True).states
    kept = torch.nn.functional.cross_entropy(model.readout(states[1], 1).mT, labels, reduction="none")[:, 5:]
    assert point.cross_entropy == pytest.approx(kept.mean().item(), abs=1e-12)
    assert point.norm == pytest.approx(states[1][:, 5:].norm(dim=-1).mean().item(), rel=1e-9)


def test_more_context_helps_a_model_that_copies():
    # a model that only knows positions scores sliding windows by their last positions: the two ways must differ
    model, tokens = tiny_model().double(), text(windows=1, length=60)[0]
    sliding = depth_curve(model, sliding_windows(tokens, 12, 3, 4), 1)
    whole = depth_curve(model, sliding_windows(tokens, 12, 12, 4), 1)
    assert int(sliding.tokens.sum()) == int(whole.tokens.sum()) == 60
    assert sliding[0].cross_entropy != whole[0].cross_entropy


def test_dropout_is_off_and_the_mode_comes_back():
    model = tiny_model(dropout=0.5).train()
    first, second = (depth_curve(model, [text()], 2)[1].cross_entropy for _ in range(2))
    assert first == second
    assert model.training


def test_fewer_than_one_loop_is_an_input_error():
    with pytest.raises(InputError, match="at least 1 loop"):
        depth_curve(tiny_model(), [text()], 0)


def _curve(losses, norms, trained):
    one = torch.ones(1, dtype=torch.float64)
    nats, lengths = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (losses, norms))
    return DepthCurve("trained", trained, nats, lengths, one)


def test_safe_range_says_where_the_curve_turns_up_and_norms_go():
    safe = _curve([2.0, 1.001, 1.0, 1.005, 1.009, 1.2, 1.0], [1, 2, 4, 8, 16, 32, 64], 3).safe_range()
    assert (safe.first, safe.last, safe.turns_up_at, safe.best) == (2, 5, 6, 3)
    assert safe.norm_growth == pytest.approx(math.log(2))
    assert (safe.norm_trained, safe.norm_deepest) == (4, 64)


def test_safe_range_of_a_curve_that_never_turns_up_or_is_lost():
    assert _curve([1.0, 1.0, 0.9], [1, 1, 1], 2).safe_range().turns_up_at is None
    lost = _curve([1.0, 1.0, math.nan, 1.0], [1, 1, 1, 1], 2).safe_range()
    assert (lost.turns_up_at, lost.last, lost.best) == (3, 2, 1)
    assert math.isnan(_curve([1.0, 1.0], [1, 1], 2).safe_range().norm_growth)
