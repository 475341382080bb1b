"""What may differ when a run is gone on with, and that its history is that of a run that never stopped."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from loopscale import InputError
from loopscale.train import train


class KillAt(TrainerCallback):
    """Send the process a signal during a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class KeepLastCheckpoint(TrainerCallback):
    """Copies the checkpoints aside once the last is saved."""

    def __init__(self, to: Path) -> None:
        self.to = to

    def on_save(self, args, state, control, **_):
        if state.global_step == state.max_steps:
            shutil.copytree(args.output_dir, self.to)


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def history(trained):
    """Return the log lines without what a clock says."""
    clocks = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    return [{key: value for key, value in line.items() if key not in clocks} for line in trained.history]


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_stop_off_the_grid_leaves_the_same_history(run_config, step):
    intervals = {"log_every": 3, "save_every": 3, "monitor_every": 2}
    whole = train(run_config("whole", **intervals), quiet=True)
    run = run_config("parts", **intervals)
    assert train(run, [KillAt(step)], quiet=True) is None
    resumed = train(run, quiet=True)
    assert history(resumed) == history(whole) and torch.equal(weights(resumed), weights(whole))


def test_a_run_killed_between_its_last_checkpoint_and_its_end_takes_no_step_more(run_config, tmp_path):
    run = run_config()
    whole = train(run, [KeepLastCheckpoint(tmp_path / "kept")], quiet=True)
    shutil.copytree(tmp_path / "kept", Path(run.out, "checkpoints"))
    for name in ("training.json", "model.safetensors", "config.json", "manifest.json"):
        Path(run.out, name).unlink()
    resumed = train(run, quiet=True)
    assert resumed.steps == 6 and torch.equal(weights(resumed), weights(whole)) and history(resumed) == history(whole)


def test_the_same_text_under_another_path_is_the_same_text(run_config, text, tmp_path, monkeypatch):
    run = run_config()
    train(run, [KillAt(3)], quiet=True)
    renamed = tmp_path / "renamed.txt"
    Path(text).rename(renamed)
    (tmp_path / "link.txt").symlink_to(renamed)
    monkeypatch.chdir(tmp_path)
    moved = replace(run, data=replace(run.data, corpus="./link.txt"), preset="laptop")
    assert train(moved, quiet=True).steps == 6


def test_more_steps_under_a_constant_schedule_are_those_of_a_longer_run(run_config):
    whole = train(run_config("whole", max_steps=9), quiet=True)
    run = run_config()
    train(run, [KillAt(3)], quiet=True)
    longer = train(run_config(max_steps=9), quiet=True)
    assert longer.steps == 9 and torch.equal(weights(longer), weights(whole))


def test_another_number_of_steps_is_refused_where_the_schedule_or_the_end_forbids_it(run_config):
    run = run_config(schedule="cosine")
    train(run, [KillAt(3)], quiet=True)
    with pytest.raises(InputError, match=r"max_steps was 6 and is 9, and the schedule cosine"):
        train(run_config(schedule="cosine", max_steps=9), quiet=True)
    train(run_config("over"), quiet=True)
    with pytest.raises(InputError, match="--init_from"):
        train(run_config("over", max_steps=9), quiet=True)


def test_a_default_and_its_value_are_the_same(run_config):
    run = run_config()
    train(run, [KillAt(3)], quiet=True)
    spelled = replace(run.with_model(readout="rmsnorm"), data=replace(run.data, stride=16))
    assert train(replace(spelled, train=replace(spelled.train, precision="float32")), quiet=True).steps == 6


def test_another_precision_than_it_began_with_is_told(run_config):
    run = run_config()
    train(run, [KillAt(3)], quiet=True)
    with pytest.raises(InputError, match=r"begun in float32, and this is bf16 \(train\.precision\)"):
        train(run_config(precision="bf16"), quiet=True)


def test_given_weights_are_started_from_and_recorded(run_config):
    first = train(run_config("first"), quiet=True)
    run = replace(run_config("second", learning_rate=1e-12), init_from=run_config("first").out)
    second = train(run, [KillAt(3)], quiet=True) or train(run, quiet=True)
    torch.testing.assert_close(weights(second), weights(first), atol=1e-5, rtol=0)
    assert json.loads(Path(run.out, "run.json").read_text())["init_from"]["path"] == run.init_from


def test_other_weights_to_start_from_are_refused_by_a_run_that_has_begun(run_config):
    train(run_config("first"), quiet=True)
    run = replace(run_config("second"), init_from=run_config("first").out)
    train(run, [KillAt(3)], quiet=True)
    with pytest.raises(InputError, match=r"began from .*first"):
        train(replace(run, init_from=None), quiet=True)
    with pytest.raises(InputError, match="this run itself"):
        train(replace(run, init_from=run.out), quiet=True)


def test_given_weights_of_other_sizes_are_told(run_config):
    train(run_config("first"), quiet=True)
    run = replace(run_config("second", model={"hidden_size": 32}), init_from=run_config("first").out)
    with pytest.raises(InputError, match=r"model\.hidden_size is 32 here and 16 there"):
        train(run, quiet=True)


def test_a_full_disk_is_a_sentence_and_what_was_saved_is_gone_on_from(run_config, monkeypatch):
    run, saved = run_config(), []

    def full(*args, **kwargs):
        if saved.append(args) or len(saved) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)

    real = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"checkpoint of step \d could not be written in .*No space left"):
        train(run, quiet=True)
    monkeypatch.setattr(torch, "save", real)
    assert train(run, quiet=True).steps == 6


class Renames(TrainerCallback):
    """Renames the run's folder before a step."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step - 1:
            self.folder.rename(f"{self.folder}-renamed")


@pytest.mark.parametrize("step", [4, 6])
def test_a_folder_renamed_meanwhile_is_told_and_gone_on_from(run_config, step):
    run = run_config(save_every=3)
    with pytest.raises(InputError, match="is gone since the run began"):
        train(run, [Renames(run.folder, step)], quiet=True)
    assert not run.folder.exists()
    Path(f"{run.folder}-renamed").rename(run.folder)
    assert train(run, quiet=True).steps == 6
