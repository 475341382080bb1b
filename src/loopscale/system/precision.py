"""Precision in which sums, norms and losses are taken, and perplexity from a cross-entropy."""

import math

import torch


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 where that is the precision."""
    return torch.promote_types(dtype, torch.float32)


def perplexity(nats: float) -> float:
    """Return e to the cross-entropy; infinity where no float holds it, NaN for NaN."""
    return math.inf if nats > 700 else math.exp(nats)
