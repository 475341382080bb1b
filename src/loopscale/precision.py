"""In what precision sums, norms and losses are taken."""

import torch


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 where that is the precision."""
    return torch.promote_types(dtype, torch.float32)
