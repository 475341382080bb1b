import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from loopscale.convert import from_readout_blind_spot
from loopscale.model import LoopedForCausalLM
from tests.helpers import shapes_unchecked
from tests.mechanisms import mechanisms

__all__ = ["mechanisms"]

settings.register_profile("thorough", deadline=None)  # pytest --hypothesis-profile=thorough

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two test processes on two cores


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Leave the shapes of arguments unchecked: for tests of many small calls, whose shapes others check."""
    with shapes_unchecked():
        yield


class Golden:
    """The paper's released code on a tiny model: arrays, and the model of each variant under ours."""

    def __init__(self) -> None:
        self.arrays = dict(np.load(DATA / "readout_blind_spot_tiny.npz"))
        self.meta = json.loads(str(self.arrays["meta"]))
        self.weights = {k[2:]: v for k, v in self.arrays.items() if k.startswith("w/")}
        self.input_ids = torch.from_numpy(self.arrays["input_ids"])
        self.labels = torch.from_numpy(self.arrays["labels"])

    def model(self, variant: str) -> LoopedForCausalLM:
        return from_readout_blind_spot(self.weights, {**self.meta, **self.meta["variants"][variant]})

    def __call__(self, variant: str, name: str) -> torch.Tensor:
        return torch.as_tensor(self.arrays[f"{variant}/{name}"])


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()
