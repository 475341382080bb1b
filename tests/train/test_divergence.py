"""A run that is not finite any more ends there, and loses nothing that was."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from loopscale import InputError, LoopedForCausalLM
from loopscale.train import first_not_finite, train
from tests.helpers import tiny_model


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
    where = f"{name.removesuffix('.weight')}, loop 1"
    assert trained.diverged == f"step 5: the state after loop 1 is not finite (first in {where})"
    assert trained.steps == 4
    assert math.isnan(trained.history[-1]["loop_norms/3"]) and trained.history[-1]["step"] == 5
    record = strict(Path(run.out, "training.json"))
    assert record["diverged"] == {"step": 5, "what": "the state after loop 1", "where": where}
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


def test_a_record_of_divergence_that_is_damaged_is_told(run_config):
    run = run_config(learning_rate=1e30, save_every=1)
    train(run, quiet=True)
    path = Path(run.out, "training.json")
    record = json.loads(path.read_text().replace('"what"', '"whau"'))
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "seal"}))  # edited, not damaged
    with pytest.raises(InputError, match="diverged"):
        train(run, quiet=True)


def test_one_that_diverges_before_its_first_checkpoint(run_config):
    run = run_config(learning_rate=1e30)
    assert train(run, quiet=True).diverged.startswith("step 2")
    with pytest.raises(InputError, match="before its first checkpoint"):
        train(run, quiet=True)


def test_the_batch_that_was_kept_replays_what_was_not_finite(run_config):
    run, name = run_config(save_every=1), "model.layers.1.mlp.down_proj.weight"
    trained = train(run, [Breaks(3, name)], quiet=True)
    batch = load_file(Path(run.out, "diverged.safetensors"))
    assert first_not_finite(trained.model, batch) in trained.diverged


def test_a_run_that_diverged_does_so_again_from_its_checkpoint_and_its_windows_alone(run_config):
    run = run_config(learning_rate=1e30, save_every=1, model={"dropout": 0.0})
    first = train(run, quiet=True).diverged
    windows = load_file(Path(run.out, "diverged.safetensors"))
    model = LoopedForCausalLM.from_pretrained(Path(run.out, "checkpoints", "checkpoint-1"))
    assert first_not_finite(model, windows) in first
    Path(run.out, "training.json").unlink()
    assert train(run, quiet=True).diverged == first
    assert all(torch.equal(load_file(Path(run.out, "diverged.safetensors"))[name], x) for name, x in windows.items())


@pytest.mark.parametrize("loop", [1, 3])
def test_the_loop_of_what_is_not_finite_first_is_told(loop):
    model, calls = tiny_model(), []

    def spoil(module, args, output):
        calls.append(1)
        return output * math.inf if len(calls) == loop else output

    model.model.layers[1].mlp.register_forward_hook(spoil, prepend=True)
    ids = torch.randint(31, (2, 8))
    assert first_not_finite(model, {"input_ids": ids, "labels": ids}) == f"model.layers.1.mlp, loop {loop}"


def test_a_gradient_that_is_not_finite_first_is_told():
    model = tiny_model()
    model.model.layers[0].mlp.register_forward_hook(lambda m, a, out: out + 0 * (out - out.detach()).sqrt())
    ids = torch.randint(31, (2, 8))
    assert first_not_finite(model, {"input_ids": ids, "labels": ids}).startswith("the gradient of model.layers.0.mlp")


class Grows(TrainerCallback):
    """Makes the embedding huge before the first step."""

    def on_train_begin(self, args, state, control, model=None, **_):
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(2.5e17)


def test_a_scale_near_the_end_of_its_numbers_is_warned_of_once(run_config, caplog):
    train(run_config(model={"tie_word_embeddings": False}, max_steps=2), [Grows()], quiet=True)
    assert caplog.text.count("no number beyond 4.6e+18 can be computed with") == 1
    caplog.clear()
    train(run_config("usual", max_steps=1), quiet=True)
    assert "no number beyond" not in caplog.text


class SeesTorch(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        self.deterministic = torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("wanted", [True, False])
def test_one_order_of_computing_is_asked_for_and_given_back(run_config, wanted):
    sees = SeesTorch()
    assert train(run_config(deterministic=wanted, max_steps=1), [sees], quiet=True).steps == 1
    assert sees.deterministic is wanted and not torch.are_deterministic_algorithms_enabled()


def test_what_is_finite_but_for_its_squares_is_told():
    model, ids = tiny_model(tie_word_embeddings=False), torch.randint(31, (2, 8))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1e20)
    assert first_not_finite(model, {"input_ids": ids, "labels": ids}) == "the squares of model.embed_tokens"


def test_a_gradient_too_large_for_its_squares_is_told():
    model, ids = tiny_model(num_loops=1), torch.randint(31, (2, 8))
    model.model.layers[0].mlp.register_forward_hook(lambda m, args, out: out + 1e24 * (out - out.detach()))
    place = first_not_finite(model, {"input_ids": ids, "labels": ids})
    assert place.startswith("the squares of the gradient of model.")


class Leaps(TrainerCallback):
    """Makes the embedding larger by a factor before every step."""

    def on_step_begin(self, args, state, control, model=None, **_):
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(30)


def test_the_warning_comes_before_the_break_also_between_log_lines(run_config, caplog):
    run = run_config(model={"tie_word_embeddings": False}, max_steps=30, log_every=30, save_every=30)
    trained = train(run, [Leaps()], quiet=True)
    said = [record.getMessage() for record in caplog.records]
    warned = next(i for i, text in enumerate(said) if "no number beyond" in text)
    step = int(said[warned].split()[1].rstrip(":"))
    assert step < int(trained.diverged.split()[1].rstrip(":"))
    assert warned < next(i for i, text in enumerate(said) if "stopping; what was saved before" in text)
