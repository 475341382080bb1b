from dataclasses import replace

import pytest

from loopscale.train import preset_run
from tests.helpers import TINY


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{i} squared is {i * i}" for i in range(4000)), encoding="utf-8")
    run = preset_run("laptop")
    return replace(
        run,
        model={key: value for key, value in TINY.items() if key != "vocab_size"},
        data=replace(run.data, corpus=str(text), sequence_length=32),
        train=replace(run.train, max_steps=100_000, batch_size=2, log_every=1, save_every=1000),
    )
