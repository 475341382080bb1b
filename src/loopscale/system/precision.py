"""Precision in which sums, norms and losses are taken, and perplexity from a cross-entropy."""

import math

import torch


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 where that is the precision."""
    return torch.promote_types(dtype, torch.float32)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return the precision of autocast on a kind of device; None where it is off, or the device has none."""
    known = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if known else None


def perplexity(nats: float) -> float:
    """Return e to the cross-entropy; infinity where no float holds it, NaN for NaN."""
    return math.inf if nats > 700 else math.exp(nats)
