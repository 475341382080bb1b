"""The monitor on transformers' own Trainer."""

import logging
import math
from itertools import pairwise

import pytest
import torch
from transformers import Trainer, TrainingArguments

from loopscale import InputError
from loopscale.audit import ScaleController, ScaleMonitor, audit
from loopscale.data import collate
from loopscale.objective import set_coefficient
from tests.helpers import tiny_model


def run(tmp_path, monitor, model, steps=12, resume=None, log_by_trainer=False, **arguments):
    rows = torch.randint(0, 31, (64, 17), generator=torch.Generator().manual_seed(1))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=8,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            remove_unused_columns=False,
            lr_scheduler_type="constant",
            **{"save_strategy": "no", "learning_rate": 1e-3, **arguments},
        ),
        data_collator=collate,
        train_dataset=list(rows),
        callbacks=[monitor],
    )
    if log_by_trainer:
        monitor.log = trainer.log
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def readings(trainer, key="scale/3"):
    return [line for line in trainer.state.log_history if key in line]


def test_it_logs_every_loop_every_n_steps(tmp_path):
    lines = readings(run(tmp_path, ScaleMonitor(every=4), tiny_model()))
    assert [line["step"] for line in lines] == [1, 4, 8, 12]
    expected = {f"{name}/{k}" for name in ("scale", "visibility", "visibility_left_out") for k in (1, 2, 3)}
    assert expected | {"angular_step/1", "angular_step/2", "step"} == set(lines[0])
    assert max(lines[-1][f"visibility/{k}"] for k in (1, 2, 3)) < 1e-5


@pytest.mark.parametrize("fields", [{"readout": "raw"}, {"num_coda_layers": 1, "injection": "add"}])
def test_its_figures_are_those_of_the_audit(tmp_path, fields):
    model = tiny_model(**fields)
    trainer = run(tmp_path, ScaleMonitor(every=1, rows=8), model, steps=1, learning_rate=0.0, max_grad_norm=0.0)
    (line,) = readings(trainer)
    rows = torch.randint(0, 31, (64, 17), generator=torch.Generator().manual_seed(1))
    report = audit(model.eval(), [rows])
    for k, stats in enumerate(report.scale, 1):
        assert line[f"scale/{k}"] == pytest.approx(stats.scale, rel=0.1)
        assert line[f"visibility/{k}"] == pytest.approx(report.coordinates["scale"].visibility[k - 1], rel=0.3)


def test_it_changes_nothing_in_training(tmp_path):
    losses = []
    for monitor in (ScaleMonitor(every=1), ScaleMonitor(every=1000)):
        torch.manual_seed(0)
        trainer = run(tmp_path, monitor, tiny_model(dropout=0.1, num_coda_layers=1))
        losses.append([line["loss"] for line in readings(trainer, "loss")])
        assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks
    assert losses[0] == losses[1]


def test_it_sends_its_figures_where_it_is_told(tmp_path):
    seen = []
    run(tmp_path, ScaleMonitor(every=6, log=seen.append), tiny_model())
    assert len(seen) == 3 and "scale/1" in seen[0]


def test_the_trainers_log_keeps_its_own_lines(tmp_path):
    trainer = run(tmp_path, ScaleMonitor(every=2), tiny_model(), steps=4, log_by_trainer=True)
    assert [line["step"] for line in readings(trainer)] == [1, 2, 4]
    assert [line["step"] for line in readings(trainer, "loss")] == [1, 2, 3, 4]


def test_it_warns_of_a_blind_coordinate_that_grows(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="loopscale.audit"):
        run(tmp_path, ScaleMonitor(every=2, warn_factor=1.05), tiny_model(), steps=30, learning_rate=3e-2)
    assert "the scale of the state after loop 3" in caplog.text and "no loss sees it" in caplog.text
    assert "norm_penalty_coef" in caplog.text


def test_it_is_silent_about_a_coordinate_that_a_loss_sees(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="loopscale.audit"):
        monitor = ScaleMonitor(every=2, warn_factor=1.05)
        run(tmp_path, monitor, tiny_model(readout="raw"), steps=30, learning_rate=3e-2)
    assert not caplog.text


def test_it_stops_a_run_that_grows_too_far(tmp_path, caplog):
    trainer = run(tmp_path, ScaleMonitor(every=2, stop_scale=0.01), tiny_model())
    assert trainer.state.global_step == 1 and "stopping" in caplog.text


@pytest.mark.parametrize("factor", [math.nan, 1e25])  # the latter's squares are infinite
def test_a_scale_that_is_no_number_is_none_within_the_limit(tmp_path, caplog, factor):
    model = tiny_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(factor)
    trainer = run(tmp_path, ScaleMonitor(every=2, stop_scale=1e30), model)
    assert trainer.state.global_step == 1 and "stopping" in caplog.text


def test_the_controller_steers_the_scale_to_its_target(tmp_path):
    model = tiny_model(num_stack_layers=1)
    controller = ScaleController(0.5)
    trainer = run(tmp_path, ScaleMonitor(every=2, scale_target=controller), model, steps=150, learning_rate=1e-2)
    lines = readings(trainer)
    assert lines[0]["scale/3"] > 1.0
    settled = [line["scale/3"] for line in lines[-20:]]
    assert math.fsum(settled) / 20 == pytest.approx(0.5, rel=0.1)
    assert model.config.norm_penalty_coef == lines[-1]["norm_penalty_coef"] != 0.01


def test_the_controller_steers_any_one_penalty(tmp_path):
    model = tiny_model(penalties=[{"kind": "anchor", "target": 0.1}, "jacobian"])
    monitor = ScaleMonitor(every=2, scale_target=ScaleController(0.5, penalty="anchor"))
    lines = readings(run(tmp_path, monitor, model, steps=6))
    assert model.config.penalties[0] == {
        "kind": "anchor",
        "target": 0.1,
        "coefficient": lines[-1]["anchor_penalty_coef"],
    }
    assert lines[-1]["anchor_penalty_coef"] != 0.01 and model.config.penalties[1] == "jacobian"
    with pytest.raises(InputError, match="no penalty 'anchor' to steer"):
        set_coefficient(tiny_model().config, "anchor", 1.0)


def test_a_resumed_run_steers_on_where_it_stood(tmp_path):
    torch.manual_seed(0)
    whole = run(tmp_path / "a", ScaleMonitor(every=2, scale_target=0.5), tiny_model(), steps=8)
    torch.manual_seed(0)
    model = tiny_model()
    options = {"save_strategy": "steps", "save_steps": 4}
    run(tmp_path / "b", ScaleMonitor(every=2, scale_target=0.5), model, steps=4, **options)
    model = tiny_model()
    resumed = run(tmp_path / "b", ScaleMonitor(every=2, scale_target=0.5), model, steps=8, resume=True, **options)
    expected = [line["norm_penalty_coef"] for line in readings(whole)]
    assert [line["norm_penalty_coef"] for line in readings(resumed)] == pytest.approx(expected, rel=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="at least 1"):
        ScaleMonitor(every=0)
    with pytest.raises(InputError, match="above 0"):
        ScaleMonitor(scale_target=-1.0)


def test_the_controller_stays_within_its_limits_and_leaves_them_at_once():
    controller = ScaleController(1.0)
    assert [controller.update(100.0) for _ in range(50)][-1] == controller.largest
    assert controller.update(0.9) < controller.largest  # nothing has piled up against the limit
    assert [controller.update(0.01) for _ in range(50)][-1] == controller.smallest
    assert controller.update(1.1) > controller.smallest


@pytest.mark.parametrize("reading", [math.nan, math.inf, 0.0])
def test_a_reading_that_is_no_length_changes_nothing(reading):
    controller = ScaleController(2.0)
    controller.start()
    assert controller.update(reading) == controller.initial
    controller.update(2.0)
    before = controller.update(3.0)
    assert controller.update(reading) == before


def test_the_controller_waits_for_the_first_step_and_moves_in_small_ones():
    controller = ScaleController(1.0)
    assert controller.update(50.0) == controller.initial  # untrained weights say nothing of the penalty
    coefficients = [controller.initial, *(controller.update(50.0) for _ in range(5))]
    assert [b / a for a, b in pairwise(coefficients)] == pytest.approx([controller.step] * 5)


@pytest.mark.parametrize("slope", [0.2, 0.5])
def test_the_controller_follows_a_scale_that_falls_by_itself(slope):
    # as trained models do: s ~ coefficient^-slope, and less with time under any penalty
    controller = ScaleController(2.0)
    coefficient, scales = controller.start(), []
    for reading in range(1, 41):
        scales.append(20 * (0.01 / coefficient) ** slope * reading**-0.5)
        coefficient = controller.update(scales[-1])
    assert scales[-10:] == pytest.approx([2.0] * 10, rel=0.1)
