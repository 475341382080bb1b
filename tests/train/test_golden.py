"""What must not move: the losses and norms of twenty steps, and run.json as earlier versions wrote it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loopscale.train import DataConfig, RunConfig, TrainConfig, check_folder, read_run, train
from tests.helpers import TINY

DATA = Path(__file__).parent.parent / "data"


def golden_run(folder: Path) -> RunConfig:
    text = folder / "text.txt"
    text.write_text("\n".join(f"line {i}: {i * i % 97} loops of {i % 13} steps" for i in range(600)), encoding="utf-8")
    sizes = {key: value for key, value in TINY.items() if key != "vocab_size"}
    return RunConfig(
        model={**sizes, "norm_penalty_coef": 1e-3},
        data=DataConfig(corpus=str(text), sequence_length=16),
        train=TrainConfig(batch_size=4, max_steps=20, log_every=1, save_every=20, precision="float32"),
        out=str(folder / "run"),
    )


def test_twenty_steps_have_the_committed_losses_and_norms(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    lines = [line for line in train(golden_run(tmp_path), quiet=True).history if "loss" in line]
    expected = json.loads((DATA / "loss_curve.json").read_text())
    assert len(lines) == len(expected) == 20
    for line, committed in zip(lines, expected, strict=True):
        assert {key: line[key] for key in committed} == pytest.approx(committed, rel=1e-4)


def test_an_old_run_json_is_read_as_the_run_it_was(tmp_path):
    (tmp_path / "run.json").write_bytes((DATA / "run_v0.1.json").read_bytes())
    (tmp_path / "training.json").write_text("{}")
    run = read_run(tmp_path)
    assert (run.preset, run.model["readout"], run.data.corpus, run.train.max_steps) == ("laptop", "raw", "docs.txt", 20)
    assert run.model_config(256).num_loops == 4
    assert check_folder(replace(run, out=str(tmp_path)))
