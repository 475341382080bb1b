"""What is measured on every trained model of a study. A further measurement is one more function in `MEASUREMENTS`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from loopscale.data import Data, batches
from loopscale.model import LoopedForCausalLM
from loopscale.objective import token_cross_entropy
from loopscale.stepping import run_loops

EVALUATION_BATCHES = 8
EVALUATION_BATCH_SIZE = 32
DEPTH = 3  # curves go on to so many times the trained depth


def depth(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return perplexity, cross-entropy and norm at every exit, to 3K loops, on windows spread over the valid split."""
    K = model.num_loops
    losses = torch.zeros(DEPTH * K, dtype=torch.float64)
    norms = torch.zeros_like(losses)
    tokens = 0
    with torch.no_grad():
        for batch in batches(data.valid, EVALUATION_BATCH_SIZE, EVALUATION_BATCHES):
            batch = batch.to(model.device)
            inputs, labels = batch[:, :-1], batch[:, 1:]
            tokens += labels.numel()
            for k, z in enumerate(run_loops(model, inputs, DEPTH * K)):
                losses[k] += token_cross_entropy(model.readout_state(z, k), model.lm_head.weight, labels).sum().cpu()
                norms[k] += z.norm(dim=-1).sum().cpu()
    perplexity = (losses / tokens).exp().tolist()
    return {
        "perplexity": perplexity[:K],
        "cross_entropy": (losses / tokens).tolist()[:K],
        "norm": (norms / tokens).tolist()[:K],
        "perplexity_by_depth": perplexity,
        "norm_by_depth": (norms / tokens).tolist(),
        "tokens": tokens,
    }


MEASUREMENTS: Mapping[str, Callable[[LoopedForCausalLM, Data], dict[str, Any]]] = {}


def measure(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return every measurement of one trained model, as plain values."""
    return depth(model, data) | {name: function(model, data) for name, function in MEASUREMENTS.items()}
