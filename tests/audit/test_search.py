"""Directions that no loss sees, found without being named."""

import pytest
import torch
from torch import nn

from loopscale import InputError
from loopscale.audit import audit, search


class PlantedLoop(nn.Module):
    """A residual MLP loop whose step neither reads nor writes one direction and whose readout projects it out."""

    num_loops = 3

    def __init__(self, hidden=24, vocab=61, normed=False, planted=True):
        super().__init__()
        self.planted = nn.functional.normalize(torch.randn(hidden), dim=0)
        self.project = torch.eye(hidden) - planted * torch.outer(self.planted, self.planted)
        self.tokens = nn.Embedding(vocab, hidden)
        self.up, self.down = nn.Linear(hidden, 48), nn.Linear(48, hidden)
        self.head = nn.Linear(hidden, vocab)
        self.norm = nn.RMSNorm(hidden) if normed else nn.Identity()

    def embed(self, input_ids):
        return self.tokens(input_ids)

    def step(self, h, k):
        return h + self.down(torch.tanh(self.up(h @ self.project))) @ self.project

    def carry(self, z, k):
        return z

    def readout(self, z, k):
        return self.head(self.norm(z @ self.project))


def batches(count=6, vocab=61, rows=4, seq=33):
    return [torch.randint(0, vocab, (rows, seq)) for _ in range(count)]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("supervision", ["per_loop", "terminal"])
def test_a_planted_direction_is_found_and_nothing_else(normed, supervision):
    model = PlantedLoop(normed=normed)
    report = search(model, batches(), supervision=supervision)
    best = report.directions[0]
    assert abs(torch.tensor(best.vector).float() @ model.planted) > 0.95
    assert best.blind and best.visibility < 1e-3 < report.null_visibility and best.retention > 0.8
    assert [d.blind for d in report.directions] == [True, False, False, False]
    assert 0 < report.retained_energy < 0.2 and report.visible_energy < 1e-6
    named = audit(model, batches(1), coordinates=report.blind, supervision=supervision).coordinates["found_1"]
    assert named.verdict == "blind_spot"
    assert named.retention == pytest.approx([1.0] * 3, abs=1e-3)


def test_noise_is_not_a_finding():
    # 8 + 8 tokens in 24 dimensions: many directions look invisible where they were found, none on fresh tokens
    report = search(PlantedLoop(planted=False), batches(count=2, rows=1, seq=9))
    assert min(d.fitted_visibility for d in report.directions) < 0.05
    assert not any(d.blind for d in report.directions)
    assert report.visible_energy == report.retained_energy == 0


def test_a_penalty_sees_the_planted_direction():
    report = search(PlantedLoop(), batches(), norm_penalty_coef=0.01)
    assert not any(d.blind for d in report.directions)


def test_a_direction_whose_sign_the_loop_turns_is_found():
    model = PlantedLoop()
    model.carry = lambda z, k: z - 2 * (z @ model.planted)[..., None] * model.planted
    best = search(model, batches()).directions[0]
    assert best.blind and best.retention < -0.8
    assert abs(torch.tensor(best.vector).float() @ model.planted) > 0.95


def test_where_all_are_blind_there_may_be_more():
    report = search(PlantedLoop(), batches(), num_directions=1)
    assert any("there may be more" in note for note in report.notes)
    with pytest.raises(InputError, match="probes 0"):
        search(PlantedLoop(), batches(), probes=0)


def test_a_direction_that_the_loop_forgets_is_not_a_blind_spot():
    model = PlantedLoop()
    model.carry = lambda z, k: z @ model.project
    assert not any(d.blind for d in search(model, batches()).directions)


def test_a_planted_direction_stands_out_from_those_that_only_rare_tokens_see():
    model = PlantedLoop(hidden=32, vocab=61)
    rows = torch.randint(0, 12, (48, 33))  # of 61 tokens 12 occur: the others' rows of the head are hardly felt
    with torch.no_grad():
        model.head.bias[12:] = -6.0
    best = search(model, rows.split(8)).directions[0]
    assert abs(torch.tensor(best.vector).float() @ model.planted) > 0.95
    assert best.blind and best.visibility < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_a_hidden_channel_that_every_loop_writes_anew_is_not_a_blind_spot(seed):
    torch.manual_seed(seed)
    model = PlantedLoop(hidden=32)

    def step(h, k):
        kept = PlantedLoop.step(model, h, k) @ model.project
        return kept + 5 * torch.tanh(kept[..., :1]) * model.planted

    model.step = step
    report = search(model, batches(count=2, rows=2))
    assert not any(d.blind for d in report.directions)
    assert report.directions[0].retention_se > 0.05  # what the other channels write there is noise


def test_a_search_is_repeatable_and_leaves_the_random_state():
    model, data, before = PlantedLoop(), batches(), torch.get_rng_state()
    assert search(model, data) == search(model, data)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_tokens_are_noted():
    assert not search(PlantedLoop(), batches()).notes
    assert "give 96" in search(PlantedLoop(), batches(count=2, rows=1)).notes[0]


def test_nothing_to_search_is_told_in_words():
    with pytest.raises(InputError, match="no loss looks"):
        search(PlantedLoop(), batches(), loop_weights=[0.0, 0.0, 0.0])
    alone = PlantedLoop()
    alone.num_loops, alone.step = 1, lambda h, k: [h + 0.1][k]
    with pytest.raises(InputError, match="one loop"):
        search(alone, batches())


def test_one_batch_is_not_enough():
    with pytest.raises(InputError, match="at least 2 batches"):
        search(PlantedLoop(), batches(1))
