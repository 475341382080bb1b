"""Models small enough for any test, and folders that all test processes share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from loopscale.model import LoopedConfig, LoopedForCausalLM
from tests.shapes import shapes_unchecked as shapes_unchecked

TINY = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_stack_layers": 2,
    "num_attention_heads": 2,
    "num_loops": 3,
    "max_position_embeddings": 48,
    "dropout": 0.0,
}


def tiny_config(**overrides: Any) -> LoopedConfig:
    """A model small enough for any test."""
    return LoopedConfig(**{**TINY, **overrides})


def tiny_model(**overrides: Any) -> LoopedForCausalLM:
    """The same, built, in eval mode."""
    return LoopedForCausalLM(tiny_config(**overrides)).eval()


def made_once(factory: Any, name: str, make: Callable[[Path], Any]) -> Path:
    """Return a folder that `make` has filled: once for all test processes of a run. `factory` is tmp_path_factory."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        folder: Path = factory.mktemp(name)
        make(folder)
        return folder
    folder = factory.getbasetemp().parent / f"{name}-{run}"
    folder.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (done := folder.with_suffix(".done")).exists():  # the first process to ask makes it for all
            make(folder)
            done.touch()
    return folder
