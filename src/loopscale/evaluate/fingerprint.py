"""Which model a calibrated rule belongs to."""

import hashlib
from typing import Any

import torch
from torch import nn

from loopscale.stepping import Looped

VALUES = 64  # of every weight


def fingerprint(model: Looped | Any) -> str:
    """Return a short hash of a model's weights: names, shapes, and a few values of each in bf16.

    The same in any floating-point precision and on any device; a model that keeps no weights has none.
    """
    digest = hashlib.sha256()
    if isinstance(model, nn.Module):
        for name, weight in model.named_parameters():
            values = weight.detach().flatten()[:VALUES].to("cpu", torch.bfloat16).view(torch.int16)
            digest.update(f"{name} {tuple(weight.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]
