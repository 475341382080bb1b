import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loopscale.convert import from_ouro
from loopscale.model import LoopedForCausalLM

DATA = Path(__file__).parents[1] / "data"


class OuroGolden:
    """An Ouro's own numbers on a tiny model: arrays, weights and config under its names."""

    def __init__(self) -> None:
        self.arrays = dict(np.load(DATA / "ouro_tiny.npz"))
        self.config = json.loads(str(self.arrays["config"]))
        self.weights = {k[2:]: torch.from_numpy(v) for k, v in self.arrays.items() if k.startswith("w/")}

    def model(self) -> LoopedForCausalLM:
        return from_ouro(self.weights, self.config)

    def __call__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])


@pytest.fixture(scope="session")
def ouro() -> OuroGolden:
    return OuroGolden()
