import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from loopscale.train import train


def test_two_processes_make_the_steps_of_one(run_config, tmp_path):
    # a sampler deals window i to process i % 2, so that two halves of a step are the whole
    one = run_config("one", model={"dropout": 0.0}, max_steps=3)
    train(one, quiet=True)
    two = run_config("two", model={"dropout": 0.0}, max_steps=3, batch_size=2)
    (tmp_path / "two.json").write_text(json.dumps(two.to_dict()))
    script = tmp_path / "two.py"
    script.write_text(
        "import json, sys\n"
        "from loopscale.train import RunConfig, train\n"
        "train(RunConfig.from_dict(json.load(open(sys.argv[1]))), quiet=True)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "two.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(Path(config.out, "model.safetensors")) for config in (one, two))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-5, rtol=1e-4)
    lines = [json.loads(Path(config.out, "training.json").read_text())["history"][0] for config in (one, two)]
    assert abs(lines[0]["loop_losses/3"] - lines[1]["loop_losses/3"]) < 1e-4
