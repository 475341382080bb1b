from dataclasses import replace
from pathlib import Path

import pytest

from loopscale.train import DataConfig, RunConfig, TrainConfig
from tests.helpers import TINY


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"line {i}: {i * i % 97} loops of {i % 13} steps" for i in range(600)), encoding="utf-8")
    return str(path)


@pytest.fixture
def run_config(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make the configuration of a run of a few steps."""
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))

    def make(out: str = "run", model: dict | None = None, **train) -> RunConfig:
        sizes = {k: v for k, v in TINY.items() if k != "vocab_size"}
        base = RunConfig(
            model={**sizes, "dropout": 0.1, **(model or {})},
            data=DataConfig(corpus=text, sequence_length=16),
            train=TrainConfig(batch_size=4, max_steps=6, log_every=1, save_every=2, precision="float32"),
            out=str(tmp_path / out),
        )
        return replace(base, train=replace(base.train, **train))

    return make
