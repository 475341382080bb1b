"""Figures of the loops in training."""

import pytest
import torch

from loopscale.train.metrics import LoopSums, token_sums

LOSSES = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
NORMS = torch.tensor([[3.0, 0.0], [7.0, 6.0]])
LABELS = torch.tensor([[-100, 4, 5, 6], [-100, -100, -100, 7]])
MASK = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])


def line(*batches):
    sums = LoopSums()
    for batch in batches:
        sums.add(token_sums(*batch))
        sums.add_loss(torch.tensor(1.0))
    found = sums.line(1, (float(sums.loss), sums.loops.tolist()))
    return [[found.get(f"loop_{name}/{k}") for k in (1, 2, 3)] for name in ("losses", "norms")]


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_rows_weigh_as_much_as_they_have_tokens(name):
    losses, norms = line(({name: LABELS, "attention_mask": MASK}, LOSSES, NORMS))
    assert losses == [2.0, 3.0, None] and norms == pytest.approx([13 / 3, 2.0, None])


def test_rows_that_say_nothing_weigh_alike():
    assert line(({}, LOSSES, NORMS)) == [[3.0, 4.0, None], [5.0, 3.0, None]]


def test_rows_of_micro_batches_weigh_as_in_one_batch():
    apart = [
        ({"labels": LABELS[i : i + 1], "attention_mask": MASK[i : i + 1]}, LOSSES[i : i + 1], NORMS[i : i + 1])
        for i in (0, 1)
    ]
    assert line(*apart) == line(({"labels": LABELS, "attention_mask": MASK}, LOSSES, NORMS))


def test_a_loop_is_meaned_over_the_micro_batches_that_ran_it_and_saw_its_exit():
    deep = torch.tensor([[9.0, float("nan"), 4.0]])
    one = {"labels": LABELS[1:], "attention_mask": MASK[1:]}
    losses, norms = line((one, LOSSES[1:], NORMS[1:]), (one, deep, deep.nan_to_num(1.0), [True, False, True]))
    assert losses == [7.0, 6.0, 4.0] and norms == [8.0, 3.5, 4.0]
