import math

import pytest
import torch

from loopscale import InputError
from loopscale.objective import (
    SUPERVISIONS,
    NormPenalty,
    Weighted,
    build_supervision,
    exit_distribution,
    token_cross_entropy,
)

# 2 loops, 1 sequence of 2 tokens; the second token is ignored
LOSSES = torch.tensor([[[3.0, 0.0]], [[1.0, 0.0]]])
MASK = torch.tensor([[True, False]])


def test_terminal_sees_the_last_exit_alone():
    terminal = build_supervision("terminal")
    assert terminal.loss(LOSSES, None, MASK, 1.0) == 1.0
    assert [terminal.supervises(k, 2) for k in range(2)] == [False, True]


def test_per_loop_is_the_mean_and_takes_weights():
    assert build_supervision("per_loop").loss(LOSSES, None, MASK, 1.0) == 2.0
    weighted = build_supervision("per_loop", [3.0, 1.0])
    assert weighted.loss(LOSSES, None, MASK, 1.0) == 2.5
    assert not build_supervision("per_loop", [0.0, 1.0]).supervises(0, 2)
    assert not weighted.supervises(2, 3)
    deeper = torch.cat([LOSSES, 9 + LOSSES[:1]])
    assert weighted.loss(deeper, None, MASK, 1.0) == 2.5


def test_exit_distribution_by_hand():
    gates = torch.tensor([0.5, 0.5, 0.9]).view(3, 1, 1)
    torch.testing.assert_close(exit_distribution(gates).flatten(), torch.tensor([0.5, 0.25, 0.25]))


def test_exit_gate_is_expected_loss_minus_entropy():
    gates = torch.tensor([[[0.25, 0.5]], [[0.5, 0.5]]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    loss = build_supervision("exit_gate", entropy_coef=0.1).loss(LOSSES, gates, MASK, 1.0)
    assert loss.item() == pytest.approx(0.25 * 3 + 0.75 * 1 - 0.1 * entropy)


def test_a_sure_gate_has_no_nan_gradient():
    logits = torch.full((2, 1, 2), 200.0, requires_grad=True)  # sigmoid is exactly 1 in float32
    build_supervision("exit_gate", entropy_coef=0.1).loss(LOSSES, torch.sigmoid(logits), MASK, 1.0).backward()
    assert torch.isfinite(logits.grad).all()


def test_norm_penalty_is_the_mean_square_over_loops_tokens_and_channels():
    states = [torch.full((1, 2, 4), 2.0), torch.full((1, 2, 4), 4.0)]
    assert NormPenalty(Weighted(1.0))(states, torch.ones(1, 2, dtype=torch.bool), 2) == 10.0
    states[0][0, 1] = 100.0
    assert NormPenalty(Weighted(1.0))(states, MASK, 1) == 10.0


def test_token_cross_entropy_by_hand_and_ignored_tokens():
    x, weight = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    loss = token_cross_entropy(x, weight, torch.tensor([[0, -100]]))
    torch.testing.assert_close(loss, torch.tensor([[math.log(1 + math.exp(-1)), 0.0]]))


def test_weights_that_no_exit_that_ran_has_are_told():
    with pytest.raises(InputError, match="run more loops"):
        build_supervision("per_loop", [0.0, 0.0, 1.0]).loss(LOSSES, None, MASK, 1.0)


def test_an_unknown_supervision_is_told_with_a_guess():
    with pytest.raises(InputError, match="did you mean 'per_loop'"):
        build_supervision("per_lop")


# 2 loops, 1 sequence of 4 tokens: the gate is sure, of loop 1 for half of the tokens and of loop 2 for the others
SURE = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]]])
UNDECIDED = torch.full((2, 1, 4), 0.5)
FREE = torch.zeros(2, 1, 4)  # cross-entropies
ALL = torch.ones(1, 4, dtype=torch.bool)


def test_tokens_that_are_sure_of_different_loops_cost_a_batch_nothing_and_each_token_all_its_entropy():
    balanced = build_supervision({"kind": "batch_exit_gate", "coefficient": 1.0})
    of_tokens = build_supervision("exit_gate", entropy_coef=1.0)
    assert balanced.loss(FREE, SURE, ALL, 4).item() == pytest.approx(0, abs=1e-7)
    assert balanced.loss(FREE, UNDECIDED, ALL, 4).item() == pytest.approx(0, abs=1e-7)
    assert of_tokens.loss(FREE, SURE, ALL, 4).item() == pytest.approx(0, abs=1e-7)
    assert of_tokens.loss(FREE, UNDECIDED, ALL, 4).item() == pytest.approx(-math.log(2))  # draws all to leave alike
    same = torch.tensor([[[1.0, 1.0, 1.0, 1.0]], [[0.5, 0.5, 0.5, 0.5]]])
    assert balanced.loss(FREE, same, ALL, 4).item() == pytest.approx(math.log(2))  # one loop alone is not what is asked


def test_tokens_that_need_different_loops_get_them_from_the_batch_average_alone():
    losses = torch.tensor([[[0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0, 0.0]]])  # half of the tokens are best at loop 1
    found = {}
    for kind in ({"kind": "batch_exit_gate", "coefficient": 2.0}, "exit_gate"):
        logits = torch.zeros(2, 1, 4, requires_grad=True)
        optimizer = torch.optim.Adam([logits], 0.1)
        for _ in range(200):
            optimizer.zero_grad()
            build_supervision(kind, entropy_coef=2.0).loss(losses, torch.sigmoid(logits), ALL, 4).backward()
            optimizer.step()
        p = exit_distribution(torch.sigmoid(logits.detach()))
        found[build_supervision(kind).name] = float((p * losses).sum(0).mean())
    assert found["batch_exit_gate"] < 0.01 and found["exit_gate"] > 0.35


def test_the_divergence_of_a_batch_by_hand_with_a_geometric_prior_and_padding():
    gates = torch.tensor([[[0.5, 0.9]], [[0.25, 0.9]], [[0.9, 0.9]]])
    kind = {"kind": "batch_exit_gate", "coefficient": 0.3, "prior": "geometric", "rate": 0.2}
    found = build_supervision(kind).loss(torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1) * MASK, gates, MASK, 2.0)
    p, prior = (0.5, 0.125, 0.375), (0.2, 0.16, 0.64)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, prior, strict=True))
    assert found.item() == pytest.approx((0.5 * 3 + 0.125 * 1 + 0.375 * 2 + 0.3 * divergence) / 2)
    assert torch.isfinite(build_supervision(kind).loss(FREE, SURE, ~ALL, 1))


def test_annealed_is_per_loop_and_terminal_in_its_last_share():
    annealed = build_supervision({"kind": "annealed", "share": 0.3}, [3.0, 1.0])
    assert [annealed.at(step / 10).name for step in range(10)] == ["per_loop"] * 7 + ["terminal"] * 3
    assert annealed.at(0.1).loss(LOSSES, None, MASK, 1.0) == annealed.loss(LOSSES, None, MASK, 1.0) == 2.5
    assert annealed.at(0.9).loss(LOSSES, None, MASK, 1.0) == 1.0
    assert all(annealed.supervises(k, 2) for k in range(2))
    assert all(build_supervision(kind).at(0.99).name == kind for kind in SUPERVISIONS if kind != "annealed")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"kind": "annealed", "share": 1.0}, "supervision 'annealed': share is 1.0"),
        ({"kind": "annealed", "shar": 0.5}, "did you mean 'share'"),
        ({"kind": "batch_exit_gate", "rate": 0.0}, "rate is 0.0"),
        ({"kind": "batch_exit_gate", "coefficient": -1.0}, "coefficient is -1.0"),
        ({"kind": "batch_exit_gate", "prior": "flat"}, "prior"),
        ({"kind": "terminal", "share": 0.5}, "takes no arguments"),
    ],
)
def test_what_a_supervision_cannot_be_given_is_told(kind, words):
    with pytest.raises(InputError, match=words):
        build_supervision(kind)
