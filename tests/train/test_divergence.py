"""A run that is not finite any more ends there, and loses nothing that was."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from loopscale import InputError
from loopscale.train import train


class Breaks(TrainerCallback):
    """Makes one weight NaN before a step."""

    def __init__(self, step: int, name: str = "model.layers.0.mlp.up_proj.weight") -> None:
        self.step, self.name = step, name

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step == self.step - 1:
            with torch.no_grad():
                model.get_parameter(self.name).view(-1)[0] = math.nan


def strict(path: Path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def some_weight(trained_or_model) -> str:
    return next(name for name, p in trained_or_model.named_parameters() if "layers.1" in name and p.ndim == 2)


def test_a_run_that_is_not_finite_ends_there_and_keeps_its_checkpoint(run_config):
    run = run_config()
    name = some_weight(train(run_config("other", max_steps=1), quiet=True).model)
    trained = train(run, [Breaks(5, name)], quiet=True)
    assert trained.diverged == "step 5: the state after loop 1 is not finite" and trained.steps == 4
    assert math.isnan(trained.history[-1]["loop_norms/3"]) and trained.history[-1]["step"] == 5
    record = strict(Path(run.out, "training.json"))
    assert record["diverged"] == {"step": 5, "what": "the state after loop 1"}
    assert record["history"][-1]["loss"] is None
    checkpoint = Path(run.out, "checkpoints", "checkpoint-4")
    assert all(torch.isfinite(weight).all() for weight in load_file(checkpoint / "model.safetensors").values())
    assert not Path(run.out, "model.safetensors").exists()
    assert load_file(Path(run.out, "diverged.safetensors"))["input_ids"].shape == (4, 16)


def test_a_run_that_diverged_is_not_trained_again(run_config):
    run = run_config()
    name = some_weight(train(run_config("other", max_steps=1), quiet=True).model)
    train(run, [Breaks(5, name)], quiet=True)
    again = train(run, quiet=True)
    assert again.diverged.startswith("step 5") and all(torch.isfinite(p).all() for p in again.model.parameters())


def test_one_that_diverges_before_its_first_checkpoint(run_config):
    run = run_config(learning_rate=1e30)
    assert train(run, quiet=True).diverged.startswith("step 2")
    with pytest.raises(InputError, match="before its first checkpoint"):
        train(run, quiet=True)
