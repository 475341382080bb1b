"""One run on one process and on two, whole models and shared-out ones: the same steps, checkpoints for each other."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file
from transformers import TrainerCallback

from loopscale import InputError
from loopscale.train import TrainConfig, train
from loopscale.train.checkpoints import last_checkpoint
from tests.helpers import shapes_unchecked
from tests.train.conftest import make_run, write_stream, write_text
from tests.train.pair import Pair, train_all

# no loss reads the gate; a sampler deals window i to process i % 2, so that two halves of a step are the whole
PLAIN = {"dropout": 0.0, "exit_gate": True}
LAYERED = {
    "dropout": 0.0,
    **{"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear", "supervision": "terminal"},
}
DRAWN = {
    "depth": {"kind": "uniform", "low": 1, "high": 4, "with_gradient": 2},
    **{"micro_batches": 2, "checkpoint_loops": True},
}
KINDS = {
    "plain": (PLAIN, {}),
    "drawn": (LAYERED, DRAWN),
    "bf16": (PLAIN, {"precision": "bf16"}),
    "muon": (PLAIN, {"optimizer": "muon"}),
}
WAYS = {"ddp": False, "fsdp": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    write_text(folder)
    write_stream(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def pair(folder):
    return Pair(folder)


@pytest.fixture(scope="module")
def runs(folder, pair):
    """Return the runs of every kind, made by one process and by two in both ways."""
    configs = {}
    for kind, (model, settings) in KINDS.items():
        configs[kind, "one"] = make_run(folder, f"{kind}-one", model=model, batch_size=8, max_steps=4, **settings)
        for way, shard in WAYS.items():
            asked = {**settings, "batch_size": 4, "max_steps": 4, "shard": shard}
            configs[kind, way] = make_run(folder, f"{kind}-{way}", model=model, **asked)
    with shapes_unchecked():
        for kind in KINDS:
            train(configs[kind, "one"], quiet=True)
    pair.run(train_all, [config.to_dict() for (_, way), config in configs.items() if way != "one"])
    return configs


def weights(config):
    return load_file(Path(config.out, "model.safetensors"))


def lines(config):
    return json.loads(Path(config.out, "training.json").read_text())["history"][:-1]  # the last one says how fast


def assert_same(one, two, tolerance=1e-5):
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(theirs[name], weight, atol=tolerance, rtol=1e-4) for name, weight in ours.items())
    for a, b in zip(lines(one), lines(two), strict=True):
        assert a.keys() == b.keys() and b == pytest.approx(a, rel=20 * tolerance, abs=tolerance)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_steps_of_one(runs, kind, way):
    assert_same(runs[kind, "one"], runs[kind, way], tolerance=1e-3 if kind == "bf16" else 1e-5)
    ours, theirs = ({path.name for path in runs[kind, name].folder.iterdir()} for name in ("one", way))
    assert ours == theirs


class Stop(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def gone_on_with(folder, pair, runs):
    """Return runs that were stopped, or lost a process, and were gone on with in another way."""
    if Version(transformers.__version__) < Version("5.24"):
        pytest.skip("transformers loads no optimizer's state into two processes on a CPU: it does from 5.24 on")

    def named(name, way="one", batch_size=4):
        way = {"shard": WAYS.get(way, False), "batch_size": 8 if way == "one" else batch_size}
        data = {"corpus": str(folder / "stream"), "stream": True} if "stream" in name else {}
        return make_run(folder, name, model=PLAIN, data=data, max_steps=4, **way)

    stopped = {"ddp to one": "ddp", "fsdp to ddp": "fsdp", "stopped stream": "ddp"}
    pair.run(train_all, [named(name, way).to_dict() for name, way in stopped.items()], (1, 2, signal.SIGTERM))
    pair.run(train_all, [named("fsdp killed", "fsdp").to_dict()], (1, 3, signal.SIGKILL), statuses=(1, -9))
    with shapes_unchecked():
        assert train(named("one to fsdp"), [Stop()], quiet=True) is None
        steps = {name: last_checkpoint(folder / name) for name in (*stopped, "fsdp killed", "one to fsdp")}
        assert all(step.endswith(("-2", "-3")) for step in steps.values()), steps
        with pytest.raises(InputError, match=r"2 processes and 8 windows a step, and these are 1 with 4: give"):
            train(named("ddp to one", None), quiet=True)
        for name in ("ddp to one", "fsdp killed"):
            train(named(name), quiet=True)
    ways = {"fsdp to ddp": "ddp", "one to fsdp": "fsdp", "stopped stream": "ddp", "stream in one go": "ddp"}
    pair.run(train_all, [named(name, way).to_dict() for name, way in ways.items()])
    return named


@pytest.mark.parametrize("name", ["ddp to one", "fsdp to ddp", "one to fsdp", "fsdp killed"])
def test_a_checkpoint_is_gone_on_from_by_any_number_of_processes_in_any_way(runs, gone_on_with, name):
    assert_same(runs["plain", "one"], gone_on_with(name))


def test_two_processes_that_share_a_stream_go_on_with_their_very_next_windows(gone_on_with):
    assert_same(gone_on_with("stream in one go"), gone_on_with("stopped stream"), tolerance=1e-6)


def test_readings_of_a_model_that_is_shared_out_are_refused():
    with pytest.raises(InputError, match=r"train\.shard and train\.monitor_every: .*leave out one"):
        TrainConfig(shard=True, monitor_every=5)
