import json
from dataclasses import replace
from pathlib import Path

import pytest

from loopscale.train import DataConfig, RunConfig, TrainConfig
from tests.helpers import TINY


def write_text(folder: Path) -> str:
    path = folder / "text.txt"
    path.write_text("\n".join(f"line {i}: {i * i % 97} loops of {i % 13} steps" for i in range(600)), encoding="utf-8")
    return str(path)


def write_stream(folder: Path) -> Path:
    (folder / "stream").mkdir()
    for i in range(2):
        rows = [json.dumps({"text": f"shard {i} line {j}: {j * j % 97} loops"}) for j in range(300)]
        (folder / "stream" / f"part-{i}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder / "stream"


def make_run(folder: Path, out: str = "run", model: dict | None = None, data: dict | None = None, **train) -> RunConfig:
    """Make the configuration of a run of a few steps on the text in a folder."""
    sizes = {k: v for k, v in TINY.items() if k != "vocab_size"}
    base = RunConfig(
        model={**sizes, "dropout": 0.1, **(model or {})},
        data=DataConfig(**{"corpus": str(folder / "text.txt"), "sequence_length": 16, **(data or {})}),
        train=TrainConfig(batch_size=4, max_steps=6, log_every=1, save_every=2, precision="float32"),
        out=str(folder / out),
    )
    return replace(base, train=replace(base.train, **train))


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


@pytest.fixture
def run_config(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make the configuration of a run of a few steps."""
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    return lambda *args, **kwargs: make_run(tmp_path, *args, **kwargs)
