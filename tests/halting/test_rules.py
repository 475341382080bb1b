import json
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscale.errors import InputError
from loopscale.evaluate import RULES, CalibratedRule, Exit, is_gated, rule_named
from loopscale.halting.calibrated import fingerprint
from loopscale.objective import exit_distribution
from tests.evaluate.models import Injecting
from tests.helpers import tiny_model

B, T, D, V = 2, 3, 5, 7


def _exits():
    exits = [Exit(k, torch.randn(B, T, D), 4 * torch.randn(B, T, V)) for k in range(2)]
    return exits[0], exits[1]


def test_scores_are_what_their_names_say():
    before, now = _exits()
    p, q = now.logits.softmax(-1), before.logits.softmax(-1)
    ranked = now.logits.sort(-1, descending=True).values
    expected = {
        "logit_margin": ranked[..., 0] - ranked[..., 1],
        "max_probability": p.max(-1).values,
        "entropy": -torch.distributions.Categorical(p).entropy(),
        "kl": -(p * (p / q).log()).sum(-1),
        "state_change": -((now.z - before.z).norm(dim=-1) / now.z.norm(dim=-1)).clamp_max(2),
    }
    for name, values in expected.items():
        torch.testing.assert_close(RULES[name].scores(Injecting(), now, before), values, rtol=1e-4, atol=1e-5)


def test_scores_of_bfloat16_are_float32():
    before, now = (Exit(e.k, e.z.bfloat16(), e.logits.bfloat16()) for e in _exits())
    for name in ("logit_margin", "max_probability", "entropy", "kl", "state_change"):
        assert RULES[name].scores(Injecting(), now, before).dtype == torch.float32


@pytest.mark.parametrize("name", ["kl", "state_change"])
def test_rules_that_compare_exits_never_stop_at_the_first(name):
    scores = RULES[name].scores(Injecting(), _exits()[0], None)
    assert scores.shape == (B, T)
    assert (scores == -math.inf).all()


def test_states_that_do_not_move_or_are_zero_have_a_score():
    z = torch.zeros(B, T, D)
    scores = RULES["state_change"].scores(Injecting(), Exit(1, z), Exit(0, z))
    assert (scores == 0).all()


def _gate_scores(model, ids, loops):
    rule, before, found = RULES["exit_gate"], None, []
    states = model(ids, num_loops=loops, output_states=True).states
    for k, z in enumerate(states):
        scores = rule.scores(model, Exit(k, z), before)
        before = Exit(k, z, scores=scores)
        found.append(scores)
    return torch.stack(found), states


def test_the_gate_rule_is_the_cumulative_exit_probability():
    model, ids = tiny_model(exit_gate=True), torch.randint(0, 31, (B, T))
    with torch.no_grad():
        scores, states = _gate_scores(model, ids, 4)
        gates = torch.stack([model.exit_probability(z, k) for k, z in enumerate(states)])
    torch.testing.assert_close(scores[:-1], exit_distribution(gates).cumsum(0)[:-1])


def test_a_gate_threshold_of_one_means_full_depth_even_for_a_sure_gate():
    model, ids = tiny_model(exit_gate=True), torch.randint(0, 31, (B, T))
    torch.nn.init.constant_(model.exit_gate.bias, 1e4)
    with torch.no_grad():
        scores, _ = _gate_scores(model, ids, 3)
    assert not CalibratedRule(RULES["exit_gate"], 1.0, "token", 3).halts(scores[0]).any()
    assert CalibratedRule(RULES["exit_gate"], 0.999, "token", 3).halts(scores[0]).all()


def test_only_gated_models_have_the_gate_rule():
    rule = RULES["exit_gate"]
    assert [is_gated(m) for m in (tiny_model(exit_gate=True), tiny_model(), Injecting())] == [True, False, False]
    assert rule.applies_to(tiny_model(exit_gate=True)) and not rule.applies_to(tiny_model())
    with pytest.raises(InputError, match="exit gate"):
        rule.scores(Injecting(), _exits()[0], None)


def test_a_sequence_stops_by_its_mean_and_a_token_by_itself():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 2.0]])
    assert CalibratedRule(RULES["entropy"], 1.0, "token", 4).halts(scores).tolist() == [
        [False, True, True],
        [False, False, True],
    ]
    assert CalibratedRule(RULES["entropy"], 1.0, "sequence", 4).halts(scores).tolist() == [[True] * 3, [False] * 3]


@given(
    name=st.sampled_from(sorted(RULES)),
    threshold=st.floats(allow_nan=False) | st.just(math.inf),
    level=st.sampled_from(["sequence", "token"]),
    loops=st.integers(1, 64),
    first=st.integers(1, 64),
)
def test_a_rule_survives_json(name, threshold, level, loops, first):
    if threshold == -math.inf:
        return
    rule = CalibratedRule(RULES[name], threshold, level, loops, first_exit=min(first, loops))
    assert CalibratedRule.from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False))) == rule


def test_a_rule_survives_a_file(tmp_path):
    rule = CalibratedRule(RULES["kl"], -0.25, "token", 4)
    rule.save(tmp_path / "rule.json")
    assert CalibratedRule.load(tmp_path / "rule.json") == rule


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rule": "entrpy"}, "did you mean 'entropy'"),
        ({"level": "word"}, "unknown halting level 'word'"),
        ({"threshold": ...}, "'threshold' is missing"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"num_loops": 4.9}, "num_loops"),
        ({"num_loops": math.inf}, "num_loops"),
        ({"first_exit": 0}, "first_exit"),
        ({"first_exit": 5}, "first_exit"),
        ({"rule": ["kl"]}, "rule must be a name"),
    ],
)
def test_a_bad_rule_is_one_sentence(change, sentence):
    description = CalibratedRule(RULES["kl"], -0.25, "token", 4).to_dict() | change
    with pytest.raises(InputError, match=sentence):
        CalibratedRule.from_dict({k: v for k, v in description.items() if v is not ...})


def test_a_rule_knows_its_model_in_any_precision():
    torch.manual_seed(0)
    model, other = tiny_model(), tiny_model()
    rule = CalibratedRule(RULES["kl"], -0.25, "token", 3, fingerprint(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.require_fit(model, 3)
        rule.require_fit(model.bfloat16(), 3)
    with pytest.warns(UserWarning, match="calibrated on another model"):
        rule.require_fit(other, 3)
    with pytest.raises(InputError, match="for 3 loops, not for 4"):
        rule.require_fit(model, 4)


def test_a_rule_of_an_older_file_may_stop_at_every_exit():
    description = CalibratedRule(RULES["kl"], -0.25, "token", 4).to_dict()
    del description["first_exit"]
    assert CalibratedRule.from_dict(description).first_exit == 1


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{"])
def test_a_file_that_holds_no_rule_is_told(tmp_path, content):
    (tmp_path / "rule.json").write_bytes(content)
    with pytest.raises(InputError, match="write a halting rule with"):
        CalibratedRule.load(tmp_path / "rule.json")


def test_no_file_and_no_name_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="write a halting rule with"):
        CalibratedRule.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="did you mean 'kl'"):
        rule_named("kll")


def test_a_state_of_no_length_counts_no_more_than_one_that_turned_round():
    before, now = _exits()
    now.z[0, 0] = 0
    scores = RULES["state_change"].scores(Injecting(), now, before)
    assert scores[0, 0] == -2 and scores.min() >= -2
