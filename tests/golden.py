"""The paper's released code on a tiny model: its arrays, and the same models in ours."""

import json
from pathlib import Path

import numpy as np
import torch

from loopscale.convert import from_readout_blind_spot
from loopscale.model import LoopedForCausalLM

DATA = Path(__file__).parent / "data"


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
