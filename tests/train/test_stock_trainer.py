"""transformers' own Trainer with rows of `labels`, as other people's scripts have it."""

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from loopscale import InputError
from loopscale.audit import ScaleMonitor
from tests.helpers import tiny_model


def rows(count=12, width=10):
    ids = torch.randint(1, 31, (count, width), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in ids]


def stock_trainer(folder, model, callbacks=(), arguments=None, **options):
    settings = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 5,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    args = TrainingArguments(**{**settings, **(arguments or {})})
    return Trainer(model=model, args=args, callbacks=list(callbacks), **{"train_dataset": rows(), **options})


@pytest.mark.parametrize("overrides", [{}, {"supervision": "exit_gate"}, {"supervision": "terminal"}])
def test_evaluate_gives_the_loss_and_calls_the_metrics(tmp_path, overrides):
    model, seen = tiny_model(**overrides), []
    trainer = stock_trainer(tmp_path, model, eval_dataset=rows(), compute_metrics=lambda p: seen.append(p) or {"x": 1})
    found = trainer.evaluate()
    whole = torch.stack([row["input_ids"] for row in rows()])
    assert found["eval_x"] == 1
    assert found["eval_loss"] == pytest.approx(model(whole, labels=whole).loss.item(), rel=1e-4)
    assert seen[0].predictions.shape == (12, 10, 31) and seen[0].label_ids.shape == (12, 10)
    np.testing.assert_allclose(seen[0].predictions, model(whole).logits.detach(), atol=1e-5)


def test_predict_hands_back_logits_row_by_row(tmp_path):
    found = stock_trainer(tmp_path, tiny_model()).predict(rows(7))
    assert found.predictions.shape == (7, 10, 31) and "test_loss" in found.metrics


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    arguments = {**settings, "load_best_model_at_end": True, "learning_rate": 1e-2}
    trainer = stock_trainer(tmp_path, tiny_model(), eval_dataset=rows(), arguments=arguments)
    trainer.train()
    assert trainer.state.best_metric == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)


def test_accumulation_gives_the_losses_of_one_batch(tmp_path):
    losses = []
    for size, parts in ((4, 1), (2, 2)):
        torch.manual_seed(0)
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        trainer = stock_trainer(tmp_path, tiny_model(), arguments=arguments)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_label_smoothing_looks_at_the_next_token(tmp_path):
    trainer = stock_trainer(tmp_path, tiny_model(), arguments={"label_smoothing_factor": 0.2})
    ids = torch.stack([row["input_ids"] for row in rows(3)])
    logits = trainer.model(ids).logits[:, :-1].flatten(0, 1)
    want = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), label_smoothing=0.2)
    found = trainer.compute_loss(trainer.model, {"input_ids": ids, "labels": ids})
    torch.testing.assert_close(found, want)


def test_a_loss_of_ones_own_reads_the_logits(tmp_path):
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append(outputs.logits.shape)
        return torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    stock_trainer(tmp_path, tiny_model(), compute_loss_func=loss).train()
    assert seen == [(4, 10, 31)] * 2


def test_gradient_checkpointing_changes_nothing(tmp_path):
    losses = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = tiny_model()
        if checkpointed:
            # its name since transformers 5.24, and before
            (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
        trainer = stock_trainer(tmp_path, model)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[0] == losses[1]


def readings(trainer):
    return [line for line in trainer.state.log_history if "scale/3" in line]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"label_smoothing_factor": 0.1},  # the Trainer takes the labels out of the call
        {"eval_strategy": "steps", "eval_steps": 1},
        {"bf16": True},
    ],
)
def test_the_monitor_reads_every_step_of_any_trainer(tmp_path, arguments):
    model = tiny_model()
    trainer = stock_trainer(tmp_path, model, [ScaleMonitor(every=1)], eval_dataset=rows(), arguments=arguments)
    trainer.train()
    assert [line["step"] for line in readings(trainer)] == [1, 2]
    assert {f"{name}/{k}" for name in ("scale", "visibility") for k in (1, 2, 3)} < set(readings(trainer)[0])
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_the_monitor_reads_the_same_with_labels_of_the_call_and_of_the_text(tmp_path):
    found = []
    for arguments in ({}, {"label_smoothing_factor": 0.1}):
        torch.manual_seed(0)
        trainer = stock_trainer(tmp_path, tiny_model(readout="raw"), [ScaleMonitor(every=1)], arguments=arguments)
        trainer.train()
        found.append(readings(trainer)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Failing(TrainerCallback):
    def __init__(self, event):
        setattr(self, event, self.fail)

    def fail(self, args, state, control, **kwargs):
        raise RuntimeError("no more")


@pytest.mark.parametrize("event", ["on_step_end", "on_substep_end", "on_optimizer_step"])
def test_no_hook_is_left_after_a_failure(tmp_path, event):
    model = tiny_model()
    arguments = {"gradient_accumulation_steps": 2}
    trainer = stock_trainer(tmp_path, model, [ScaleMonitor(every=1), Failing(event)], arguments=arguments)
    with pytest.raises(RuntimeError, match="no more"):
        trainer.train()
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_no_hook_is_left_after_a_forward_that_fails(tmp_path):
    model = tiny_model()
    broken = [{"input_ids": row["input_ids"].repeat(9), "labels": row["labels"].repeat(9)} for row in rows()]
    trainer = stock_trainer(tmp_path, model, [ScaleMonitor(every=1)], train_dataset=broken)
    with pytest.raises(InputError, match="positions"):
        trainer.train()
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_a_step_that_cannot_be_read_is_said(tmp_path, caplog):
    class Around(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model.forward(**inputs).loss  # past the module's call

    arguments = stock_trainer(tmp_path, tiny_model()).args
    Around(model=tiny_model(), args=arguments, train_dataset=rows(), callbacks=[ScaleMonitor(every=1)]).train()
    assert "nothing to read" in caplog.text


def test_replicas_are_refused(tmp_path):
    trainer = stock_trainer(tmp_path, tiny_model(), [ScaleMonitor(every=1)])
    trainer.args._n_gpu = 2
    with pytest.raises(InputError, match="DataParallel"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_a_padded_row_reads_as_the_bare_one(tmp_path):
    found = []
    for pad in (0, 4):
        fill = torch.zeros(pad, dtype=torch.long)
        padded = [
            {
                "input_ids": torch.cat([row["input_ids"], fill]),
                "attention_mask": torch.cat([torch.ones(10, dtype=torch.long), fill]),
                "labels": torch.cat([row["labels"], fill - 100]),
            }
            for row in rows()
        ]
        torch.manual_seed(0)
        trainer = stock_trainer(tmp_path, tiny_model(readout="raw"), [ScaleMonitor(every=1)], train_dataset=padded)
        trainer.train()
        found.append(readings(trainer)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
