"""What may be handed to a measurement as batches, and what is told where it may not."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from loopscale import InputError
from loopscale.audit import audit, intervene, loop_curves, search
from tests.audit.test_foreign_models import VOCAB, Base, batches

MEASURES = [audit, search, loop_curves, intervene]


@pytest.mark.parametrize("measure", MEASURES)
def test_single_use_iterables_give_what_a_list_gives(measure):
    model, data = Base(), batches(4)
    expected = measure(model, data)
    assert measure(model, (batch for batch in data)) == expected
    assert measure(model, DataLoader(torch.cat(data), batch_size=3)) == expected


@pytest.mark.parametrize("measure", MEASURES)
def test_pairs_give_what_whole_rows_give(measure):
    model, data = Base(), batches(4)
    rows = torch.cat(data)
    pairs = DataLoader(TensorDataset(rows[:, :-1], rows[:, 1:]), batch_size=3)
    assert measure(model, pairs) == measure(model, data)


def test_a_filled_end_of_a_row_does_not_count():
    model, data = Base().double(), batches(1)[0]
    filled = data.clone()
    filled[0, 5:] = -100
    labels = filled[:, 1:]
    report, same = audit(model, [filled]), audit(model, [(data[:, :-1], labels)])
    assert report.tokens == 4 + 2 * 11
    for name, coordinate in report.coordinates.items():
        assert coordinate.retention == pytest.approx(same.coordinates[name].retention, rel=1e-9)
        assert coordinate.visibility == pytest.approx(same.coordinates[name].visibility, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "bad, sentence",
    [
        (lambda ids: [], "no batches"),
        (lambda ids: [torch.cat([torch.full((3, 2), -100), ids], 1)], "-100 before tokens"),
        (lambda ids: [(ids, torch.full_like(ids, -100))] * 2, "no label of the 2 batches counts"),
        (lambda ids: [ids, ids + VOCAB], f"label is .* but the readout has {VOCAB} logits"),
        (lambda ids: [ids, (ids, -1 - ids)], "ids from -"),
        (lambda ids: [(ids, ids[:, 1:])], "got tuple of 2"),
        (lambda ids: [{"ids": ids}], "got dict with ids"),
        (lambda ids: [ids.int()], "got torch.int32"),
        (lambda ids: ids, "got torch.int64"),
    ],
)
def test_other_batches_are_refused_in_words(measure, bad, sentence):
    model = Base()
    model.embed = lambda ids: model.tokens(ids % VOCAB)
    with pytest.raises(InputError, match=sentence):
        measure(model, bad(batches(1)[0]))
