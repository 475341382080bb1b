import math

import pytest
import torch

from loopscale import InputError
from loopscale.objective import NormPenalty, Weighted, build_supervision, exit_distribution, token_cross_entropy

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
