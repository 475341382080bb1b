"""Figures of the loops in training."""

import pytest
import torch

from loopscale.train.metrics import token_means

LOSSES = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
NORMS = torch.tensor([[3.0, 0.0], [7.0, 6.0]])
LABELS = torch.tensor([[-100, 4, 5, 6], [-100, -100, -100, 7]])


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_rows_weigh_as_much_as_they_have_tokens(name):
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    losses, norms = token_means({name: LABELS, "attention_mask": mask}, LOSSES, NORMS)
    torch.testing.assert_close(losses, torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(norms, torch.tensor([13 / 3, 2.0]))


def test_rows_that_say_nothing_weigh_alike():
    losses, norms = token_means({}, LOSSES, NORMS)
    torch.testing.assert_close(losses, torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(norms, torch.tensor([5.0, 3.0]))
