"""How many threads a pass over a few tokens is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopscale.model import LoopedForCausalLM

SHARED_FROM = 2_000_000  # weights: below, waiting for each other costs threads more than sharing saves them


@contextmanager
def enough_threads(model: LoopedForCausalLM) -> Iterator[None]:
    """Run on one thread where a model's matrices are too small to share; the number is what it was afterwards."""
    before = torch.get_num_threads()
    alone = model.device.type == "cpu" and before > 1 and model.num_parameters() < SHARED_FROM
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(before)
