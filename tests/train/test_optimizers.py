"""Muon beside AdamW: which weights each takes, that both do what torch's own do, and that a run goes on exactly."""

from dataclasses import replace

import pytest
import torch

from loopscale import InputError
from loopscale.train import train
from loopscale.train.optimizers import MuonAndAdamW, matrices_of
from tests.helpers import tiny_model
from tests.train.test_resumption import KillAt, history, weights

IDS = torch.arange(40).view(4, 10) * 7 % 31
WHOLE = {"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear", "attention_bias": True}
GATED = {**WHOLE, "tie_word_embeddings": False, "exit_gate": True, "supervision": "exit_gate"}
ADAMW = {"betas": (0.9, 0.95), "eps": 1e-8}


def stepped(model, *optimizers, steps=3, schedule=None):
    for _ in range(steps):
        model(IDS, labels=IDS).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if schedule is not None:
            schedule.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_muon_takes_the_matrices_between_states_alone():
    model = tiny_model(**GATED)
    taken = matrices_of(model)
    assert "model.layers.1.mlp.down_proj.weight" in taken and "model.injection.mix.weight" in taken
    left = {name for name, _ in model.named_parameters()} - taken
    ends = ("norm.weight", "layernorm.weight", "bias")
    assert {name for name in left if not name.endswith(ends)} == {
        *("model.embed_tokens.weight", "model.embed_positions.weight", "lm_head.weight", "exit_gate.weight")
    }


def test_a_step_is_that_of_torch_s_two_optimizers():
    own, theirs = (tiny_model(**GATED).train() for _ in range(2))
    theirs.load_state_dict(own.state_dict())
    matrices = matrices_of(own)
    decayed = {name for name, p in own.named_parameters() if p.ndim == 2}
    both = MuonAndAdamW(own, decayed, 0.02, 0.1, ADAMW)
    named = dict(theirs.named_parameters())
    muon = torch.optim.Muon([named[n] for n in named if n in matrices], 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [p for n, p in named.items() if n not in matrices and (n in decayed) == d], "weight_decay": decay}
        for d, decay in ((True, 0.1), (False, 0.0))
    ]
    adamw = torch.optim.AdamW(groups, 0.02, **ADAMW)
    before = weights_of(own)
    after = stepped(own, both)
    assert torch.equal(after, stepped(theirs, muon, adamw)) and not torch.equal(after, before)


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_schedule_and_a_checkpoint_reach_both():
    def made(model):
        optimizer = MuonAndAdamW(model, set(), 0.02, 0.1, ADAMW)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    whole = tiny_model().train()
    first = tiny_model().train()
    first.load_state_dict(whole.state_dict())
    optimizer, schedule = made(whole)
    expected = stepped(whole, optimizer, steps=4, schedule=schedule)
    optimizer, schedule = made(first)
    stepped(first, optimizer, steps=2, schedule=schedule)
    second = tiny_model().train()
    second.load_state_dict(first.state_dict())
    again, later = made(second)
    again.load_state_dict(optimizer.state_dict())
    later.load_state_dict(schedule.state_dict())
    assert torch.equal(stepped(second, again, steps=2, schedule=later), expected)
    assert {group["lr"] for group in again.param_groups} == {0.02 / 5}


def test_a_run_with_muon_goes_on_exactly(run_config):
    settings = {"optimizer": "muon", "learning_rate": 0.01, "schedule": "linear", "max_steps": 4}
    whole = train(run_config("whole", **settings), quiet=True)
    run = run_config("parts", **settings)
    assert train(run, [KillAt(2)], quiet=True) is None
    resumed = train(run, quiet=True)
    assert history(resumed) == history(whole) and torch.equal(weights(resumed), weights(whole))
    with pytest.raises(InputError, match=r"train\.optimizer: muon before, adamw now"):
        train(replace(run, train=replace(run.train, optimizer="adamw")), quiet=True)
