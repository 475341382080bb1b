import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from loopscale import InputError
from loopscale.load import load_model
from loopscale.storage import read_json, write_json
from loopscale.train import check_folder, train
from loopscale.train.checkpoints import last_checkpoint
from loopscale.train.run_folder import only_one, write_config
from tests.train.test_resumption import KillAt


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def losses(trained):
    return [line["loss"] for line in trained.history if "loss" in line]


def test_a_run_leaves_a_model_its_tokenizer_and_where_they_come_from(run_config):
    config = run_config()
    trained = train(config, quiet=True)
    folder = Path(config.out)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("loops", return_tensors="pt").input_ids
    torch.testing.assert_close(model(ids).logits, trained.model(ids).logits)
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["model"]["num_loops"] == 3
    assert len(record["corpus"]["sha256"]) == 64
    assert record["environment"]["torch"] == torch.__version__
    assert not (folder / "checkpoints").exists()


def test_every_loop_is_logged_and_their_mean_is_the_loss(run_config):
    for line in (line for line in train(run_config(), quiet=True).history if "loss" in line):
        per_exit = [line[f"loop_losses/{k}"] for k in (1, 2, 3)]
        assert line["loss"] == pytest.approx(sum(per_exit) / 3, rel=1e-5)
        assert all(line[f"loop_norms/{k}"] > 0 for k in (1, 2, 3))


def test_terminal_logs_the_exit_it_sees(run_config):
    line = train(run_config(model={"supervision": "terminal"}), quiet=True).history[0]
    assert line["loop_losses/3"] == pytest.approx(line["loss"], rel=1e-5)
    assert "loop_losses/1" not in line


AROUND = {
    **{"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear", "residual": "post_add"},
    **{"initial_state": "noise", "coda_input": "readout", "penalties": ["jacobian"]},
}


@pytest.mark.parametrize(
    ("model", "depth"),
    [({}, "fixed"), (AROUND, {"kind": "poisson", "mean": 3, "with_gradient": 2})],
    ids=["loop", "around"],
)
def test_resumed_equals_uninterrupted(run_config, model, depth):
    whole = train(run_config("whole", model=model, depth=depth), quiet=True)
    config = run_config("parts", model=model, depth=depth)
    assert train(config, [KillAt(3)], quiet=True) is None
    resumed = train(config, quiet=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert losses(resumed) == losses(whole)
    assert resumed.steps == 6


def test_a_save_that_was_killed_leaves_the_last_good_checkpoint(run_config):
    whole = train(run_config("whole"), quiet=True)
    config = run_config("killed")
    train(config, [KillAt(4)], quiet=True)
    staging = Path(config.out, "checkpoints", ".staging", "checkpoint-5")
    staging.mkdir(parents=True)
    (staging / "model.safetensors").write_bytes(b"half")
    assert torch.equal(weights(train(config, quiet=True)), weights(whole))


def test_a_finished_run_is_not_trained_again(run_config):
    config = run_config()
    first = train(config, quiet=True)
    before = Path(config.out, "model.safetensors").stat().st_mtime_ns
    again = train(config, quiet=True)
    assert Path(config.out, "model.safetensors").stat().st_mtime_ns == before
    assert losses(again) == losses(first)


def test_a_run_killed_before_it_removed_its_checkpoints_removes_them_later(run_config):
    config = run_config()
    train(config, quiet=True)
    left = config.folder / "checkpoints" / "checkpoint-2"
    left.mkdir(parents=True)
    train(config, quiet=True)
    assert not left.parent.exists()


def test_micro_batches_make_the_same_step(run_config):
    one = train(run_config("one", model={"dropout": 0.0}), quiet=True)
    two = train(run_config("two", model={"dropout": 0.0}, micro_batches=2), quiet=True)
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(losses(two)), torch.tensor(losses(one)), atol=1e-5, rtol=1e-5)


def test_checkpointed_loops_train_the_same(run_config):
    plain = train(run_config("plain"), quiet=True)
    saving = train(run_config("saving", checkpoint_loops=True), quiet=True)
    torch.testing.assert_close(weights(saving), weights(plain), atol=1e-6, rtol=1e-5)


def test_a_folder_of_another_run_is_refused_and_kept(run_config):
    config = run_config()
    train(config, quiet=True)
    other = replace(config, train=replace(config.train, learning_rate=1.0))
    with pytest.raises(InputError, match=r"train\.learning_rate: 0\.0003 before, 1\.0 now"):
        train(other, quiet=True)
    assert check_folder(config)


def test_a_folder_of_other_things_is_refused(run_config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        train(run_config("mine"), quiet=True)


def test_bad_data_leaves_nothing_that_blocks_the_next_start(run_config, tmp_path):
    config = run_config()
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(InputError):
        train(replace(config, data=replace(config.data, corpus=str(empty))), quiet=True)
    assert train(config, quiet=True).steps == 6


def test_a_run_evaluates_as_often_as_it_is_told(run_config):
    history = train(run_config(evaluate_every=3), quiet=True).history
    assert [line["step"] for line in history if "eval_loss" in line] == [3, 6]


def test_log_and_save_intervals_may_change_on_resuming(run_config):
    config = run_config(log_every=2, save_every=2)
    train(config, [KillAt(3)], quiet=True)
    history = train(run_config(log_every=1, save_every=1), quiet=True).history
    assert [line["step"] for line in history if "loss" in line] == [2, 4, 5, 6]


def test_seconds_go_on_from_the_checkpoint_after_a_kill(run_config):
    config = run_config()
    train(config, [KillAt(3)], quiet=True)
    path = Path(config.out, "checkpoints", "seconds.json")
    assert 0 < json.loads(path.read_text()) < 60
    path.write_text("1000.0")  # as if it had taken so long up to the checkpoint
    assert 1000 < train(config, quiet=True).seconds < 1060


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(content[: int(0.9 * len(content))])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
@pytest.mark.parametrize("how", ["gone", "short", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_gone_on_from(run_config, caplog, name, how):
    config = run_config()
    train(config, [KillAt(5)], quiet=True)
    damaged(Path(config.out, "checkpoints", "checkpoint-5", name), how)
    assert train(config, quiet=True).steps == 6
    assert f"checkpoint-5 {'lacks' if how == 'gone' else 'is damaged in'} {name}" in caplog.text
    assert "going on from checkpoint-4" in caplog.text


def test_without_a_whole_checkpoint_what_is_wrong_is_told(run_config):
    config = run_config()
    train(config, [KillAt(1)], quiet=True)
    path = Path(last_checkpoint(config.folder), "optimizer.pt")
    damaged(path, "flipped")
    with pytest.raises(InputError, match=r"checkpoint .* is damaged in optimizer.pt: remove that folder"):
        train(config, quiet=True)
    shutil.rmtree(path.parent)
    assert train(config, quiet=True).steps == 6


def test_a_checkpoint_of_another_run_is_not_gone_on_from(run_config):
    ours, other = run_config("ours"), run_config("other", seed=7)
    train(ours, [KillAt(2)], quiet=True)
    train(other, [KillAt(3)], quiet=True)
    shutil.copytree(last_checkpoint(other.folder), Path(ours.out, "checkpoints", "checkpoint-3"))
    resumed = train(ours, quiet=True)
    assert torch.equal(weights(resumed), weights(train(run_config("whole"), quiet=True)))


def test_a_damaged_finished_run_is_told(run_config):
    config = run_config()
    train(config, quiet=True)
    for name in ("training.json", "model.safetensors", "config.json", "tokenizer.json"):
        path = Path(config.out, name)
        whole = path.read_bytes()
        for content in (b"{", whole.replace(b"1", b"2", 1)):
            path.write_bytes(content)
            with pytest.raises(InputError, match="to train anew"):
                train(config, quiet=True)
        path.write_bytes(whole)
    path = Path(config.out, "training.json")
    whole = path.read_text()
    write_json(path, {**read_json(path, dict), "run": "another"}, sealed=True)
    with pytest.raises(InputError, match=r"training\.json is of another run"):
        train(config, quiet=True)
    path.write_text(whole)
    Path(config.out, "config.json").unlink()
    Path(config.out, "manifest.json").unlink()
    with pytest.raises(InputError, match=r"lacks config\.json"):
        train(config, quiet=True)


def test_a_run_is_gone_on_with_by_as_many_processes_as_began_it(run_config):
    config = run_config()
    train(config, [KillAt(3)], quiet=True)
    path = Path(config.out, "run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 2}))
    with pytest.raises(InputError, match="begun with 2 processes"):
        train(config, quiet=True)


def test_a_text_too_short_for_one_step_is_told_and_nothing_is_trained(run_config):
    config = run_config(batch_size=2048)
    with pytest.raises(InputError, match=r"makes \d+ training windows of 16 tokens, and a step takes 2048"):
        train(config, quiet=True)
    assert not Path(config.out).exists()


def test_another_text_is_refused_by_a_stopped_run_and_a_finished_one(run_config, text):
    config, before = run_config(), Path(text).read_text()
    train(config, [KillAt(3)], quiet=True)
    Path(text).write_text(before.replace("loops", "hoops"))
    with pytest.raises(InputError, match="was trained on another text"):
        train(config, quiet=True)
    Path(text).write_text(before)
    assert train(config, quiet=True).steps == 6
    Path(text).write_text(before.replace("loops", "hoops"))
    with pytest.raises(InputError, match="was trained on another text"):
        train(config, quiet=True)


def test_one_process_at_a_time_trains_in_a_folder(run_config):
    config = run_config()
    write_config(config)
    with only_one(config.folder), pytest.raises(InputError, match="another process is training"):
        train(config, quiet=True)
    assert train(config, quiet=True).steps == 6


def test_a_vocabulary_too_small_is_told(run_config):
    with pytest.raises(InputError, match="vocab"):
        train(run_config(model={"vocab_size": 50}), quiet=True)


def test_a_monitored_run_logs_its_scale_and_can_stop(run_config):
    config = run_config(monitor_every=2, stop_scale=1e-3, save_every=6, log_every=2)
    trained = train(config, quiet=True)
    readings = [line for line in trained.history if "scale/3" in line]
    assert readings and {"visibility/1", "angular_step/1"} <= set(readings[0])
    assert trained.steps < 6


def test_limits_without_readings_are_refused(run_config):
    with pytest.raises(InputError, match="monitor_every"):
        run_config(scale_target=1.0)


@pytest.mark.parametrize(("readout", "warned"), [("rmsnorm", True), ("raw", False)])
def test_a_blind_spot_is_told_before_it_is_trained(run_config, caplog, readout, warned):
    train(run_config(model={"readout": readout}, max_steps=1), quiet=True)
    assert ("no supervised loss sees the scale" in caplog.text) == warned


class SeesTheTracker(TrainerCallback):
    """Keeps where TensorBoard would be told to write."""

    def on_train_begin(self, args, state, control, **_):
        self.folder = os.environ.get("TENSORBOARD_LOGGING_DIR")


def test_trackers_write_where_nothing_is_removed_and_see_the_monitor(run_config, monkeypatch):
    monkeypatch.setattr("loopscale.train.arguments.get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr("transformers.trainer.get_reporting_integration_callbacks", lambda report_to: [])
    config, sees = run_config(report_to="tensorboard", monitor_every=2), SeesTheTracker()
    trained = train(config, [sees], quiet=True)
    assert sees.folder == str(config.folder / "tensorboard") and "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert [line["step"] for line in trained.history if "scale/3" in line] == [1, 2, 4, 6]
    assert [line["step"] for line in trained.history if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_is_not_here_is_told(run_config):
    with pytest.raises(InputError, match=r"train\.report_to names nothing_such"):
        train(run_config(report_to=["nothing_such"]), quiet=True)


def test_a_lock_that_was_removed_does_not_let_a_second_process_in(run_config):
    config = run_config()
    write_config(config)
    owner = config.folder / "checkpoints" / ".owner.json"
    with only_one(config.folder):
        said = json.loads(owner.read_text())
    owner.parent.mkdir()  # it went with the lock
    owner.write_text(json.dumps({"pid": os.getppid(), "began": psutil.Process(os.getppid()).create_time()}))
    with pytest.raises(InputError, match=rf"another process is training .*process {os.getppid()}"):
        train(config, quiet=True)
    past = {**said, "pid": os.getppid(), "began": said["began"] - 3600}
    owner.write_text(json.dumps(past))  # of a process that has died, whose number lives on
    assert train(config, quiet=True).steps == 6


def test_a_flipped_byte_in_finished_weights_is_told_by_whatever_loads_them(run_config):
    config = run_config(max_steps=1)
    train(config, quiet=True)
    damaged(Path(config.out, "model.safetensors"), "flipped")
    with pytest.raises(InputError, match=r"is damaged in model\.safetensors"):
        load_model(config.out)
    with pytest.raises(InputError, match=r"is damaged in model\.safetensors"):
        train(config, quiet=True)
