"""What training takes of the process, and gives back."""

import logging
import os
import signal
import threading

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from loopscale.audit import ScaleMonitor
from loopscale.train import train


class Fails(TrainerCallback):
    """Raises in the third step, and keeps the model."""

    def on_step_end(self, args, state, control, model=None, **_):
        self.model = model
        if state.global_step == 3:
            raise RuntimeError("boom")


class Meddles(TrainerCallback):
    """Sets what a program might set while it trains."""

    def on_train_begin(self, args, state, control, **_):
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.float64)
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"


def state_of_the_process():
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),  # Python's is used by beartype
        "torch": (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        "environment": dict(os.environ),
        "logging": (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()),
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_as_it_was(run_config, monkeypatch, fails):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    run = run_config()
    before = state_of_the_process()
    if fails:
        with pytest.raises(RuntimeError, match="boom"):
            train(run, [Meddles(), Fails()], quiet=True)
    else:
        train(run, quiet=True)
    assert state_of_the_process() == before


def test_a_failure_leaves_no_hook_on_the_model(run_config):
    fails = Fails()
    with pytest.raises(RuntimeError, match="boom"):
        train(run_config(), [ScaleMonitor(every=1), fails], quiet=True)
    assert not fails.model._forward_hooks and not fails.model._forward_pre_hooks


def test_training_in_a_thread(run_config):
    steps = []
    thread = threading.Thread(target=lambda: steps.append(train(run_config(), quiet=True).steps))
    thread.start()
    thread.join()
    assert steps == [6]


def test_a_caller_without_gradients_and_in_float64(run_config):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            trained = train(run_config(max_steps=2), quiet=True)
            assert torch.is_inference_mode_enabled() and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert trained.model.dtype == torch.float32  # as run.json says


def test_quiet_is_silent_through_the_callers_console_but_not_its_file(run_config, tmp_path, capfd):
    root = logging.getLogger()
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(tmp_path / "log")]
    for handler in handlers:
        root.addHandler(handler)
    try:
        train(run_config(max_steps=2), quiet=True)
        logging.getLogger("mine").warning("after")
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
    assert capfd.readouterr() == ("", "after\n")
    assert "blind spot" in (tmp_path / "log").read_text()


def test_quiet_prints_nothing_and_lines_are_plain(run_config, capfd):
    train(run_config("quiet", evaluate_every=3), quiet=True)
    assert capfd.readouterr() == ("", "")
    train(run_config("loud", evaluate_every=3))
    out = capfd.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert len(lines) == 6 + 2 and "\r" not in out and "{" not in out
    assert "step 3/6 loss " in lines[2] and " losses " in lines[2] and " norms " in lines[2] and " tok/s" in lines[2]
    assert lines[3].startswith("step 3/6 validation loss ")
