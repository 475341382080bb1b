import torch
from accelerate import Accelerator
from torch import nn
from transformers import Trainer, TrainingArguments

from loopscale.hf import accelerate_state
from loopscale.monitor import watch
from loopscale.monitor.loop_sums import Tally, reading_of
from loopscale.monitor.ranks import reduced
from tests.helpers import tiny_model
from tests.monitor.loops import TheirLoop, a_batch


def test_transformers_trainer_logs_the_figures_and_keeps_its_own_lines(tmp_path):
    model, data = tiny_model(), [{"input_ids": row, "labels": row} for row in torch.randint(0, 31, (32, 12))]
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, args, train_dataset=data, eval_dataset=data[:4])
    with accelerate_state(), watch(model, every=2, log=trainer):
        trainer.train()
    lines = trainer.state.log_history
    assert [line["step"] for line in lines if "loop/norm/3" in line] == [1, 2, 4]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


def test_accelerates_log_takes_the_figures():
    model, seen = TheirLoop(), []
    with accelerate_state():
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        accelerator.log = lambda values, step: seen.append(step)
        prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
        with watch(prepared, "core.1", every=2, log=accelerator.log):
            for i in range(8):
                with accelerator.accumulate(prepared):
                    accelerator.backward(prepared(a_batch(i)).sum())
                    optimizer.step()
                    optimizer.zero_grad()
    assert seen == [1, 2, 4]


def test_a_module_whose_forward_nobody_calls():
    """Lightning's pattern: the loop is called inside `training_step`, and the optimizer steps around a closure."""

    class Lit(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TheirLoop()

        def training_step(self, batch):
            return nn.functional.cross_entropy(self.net(batch).flatten(0, 1), batch.flatten())

    lit = Lit()
    optimizer = torch.optim.AdamW(lit.parameters())
    with watch(lit, "core.1", every=2) as watching:
        for i in range(4):

            def closure(i=i):
                optimizer.zero_grad()
                loss = lit.training_step(a_batch(i))
                loss.backward()
                return loss

            optimizer.step(closure)
    assert [r.step for r in watching.readings] == [1, 2, 4] and len(watching.readings[0].norm) == 3


def tallied(*states):
    tally = Tally.like(states[0], None, 4096)
    for z in states:
        tally.add(z)
    return tally


def test_processes_add_up_to_the_figures_of_the_whole_batch(monkeypatch):
    """Two processes by turns: each is told what the other would have sent, also where it ran fewer loops."""
    states = [torch.randn(4, 5, 8) for _ in range(3)]
    first, second = tallied(*(z[:2] for z in states)), tallied(*(z[2:] for z in states))
    whole = reading_of(tallied(*states).packed(), torch.float32, 1, 0.0)
    sent = []

    def record(tensor, op=None):
        sent.append(tensor.clone())

    monkeypatch.setattr("loopscale.monitor.ranks.together", lambda: True)
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "gloo")
    monkeypatch.setattr("torch.distributed.all_reduce", record)
    reduced(second, torch.device("cpu"), alone=False)
    theirs = iter(sent)

    def combine(tensor, op=torch.distributed.ReduceOp.SUM):
        other = next(theirs)
        tensor.copy_(torch.maximum(tensor, other) if op == torch.distributed.ReduceOp.MAX else tensor + other)

    monkeypatch.setattr("torch.distributed.all_reduce", combine)
    both = reading_of(reduced(first, torch.device("cpu"), alone=False), torch.float32, 1, 0.0)
    assert both.tokens == 20
    torch.testing.assert_close(both.scalars(), whole.scalars(), rtol=1e-5, atol=0.0)
    theirs = iter(sent)
    assert reading_of(reduced(None, torch.device("cpu"), alone=False), torch.float32, 1, 0.0).tokens == 10
