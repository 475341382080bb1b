"""One run and its evaluation as a user types them: torchrun, two processes, one of them killed, the command once more.

Each launch imports torch three times, so they are asked for: LAUNCHES=1 pytest tests/train/test_torchrun.py.
"""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from benchmarks.trials.subjects import without_clocks
from loopscale.cli.main import main
from loopscale.train import train
from tests.train.conftest import make_run

pytestmark = pytest.mark.skipif("LAUNCHES" not in os.environ, reason="some 40 s of a core: set LAUNCHES=1")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "loopscale"]


@pytest.fixture
def launched(tmp_path, monkeypatch, text):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)

    def launch(*words):
        with (tmp_path / "launch.log").open("a") as log:
            return subprocess.Popen([*LAUNCH, *words], stdout=log, stderr=log)

    return launch


def kill_one(process, folder):
    """Kill the second process of a launch once there is a checkpoint of its third step."""
    while not any(int(path.name.split("-")[1]) >= 3 for path in folder.glob("checkpoints/checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.02)
    for worker in psutil.Process(process.pid).children(recursive=True):
        if worker.environ().get("RANK") == "1":
            worker.kill()


def test_a_run_of_torchrun_that_loses_a_process_and_is_started_again_is_that_of_one_process(launched, tmp_path):
    settings = {"max_steps": 30, "save_every": 1}
    model = {"dropout": 0.0}
    one = make_run(tmp_path, "one", model, batch_size=8, **settings)
    document = make_run(tmp_path, "two", model, batch_size=4, **settings).to_dict()
    words = ["train", "--config", "run.yaml", "--out", "two"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({key: document[key] for key in ("model", "data", "train")}))
    process = launched(*words)
    kill_one(process, tmp_path / "two")
    assert process.wait(120) == 1
    assert launched(*words).wait(240) == 0
    train(one, quiet=True)
    curves = [
        [
            line["loss"]
            for line in json.loads((tmp_path / name / "training.json").read_text())["history"]
            if "loss" in line
        ]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == 30 and curves[1] == pytest.approx(curves[0], rel=1e-5)
    measure = ["evaluate", "two", "--windows", "5", "--batch_size", "2", "--repeats", "1"]
    assert launched(*measure, "--json", "two.json").wait(240) == 0
    assert main([*measure, "--json", "one.json"]) == 0
    found = [without_clocks(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("one", "two")]
    assert found[0] == found[1]
