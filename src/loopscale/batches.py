"""A batch of windows, as every measurement takes it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscale.errors import InputError
from loopscale.objective import IGNORED
from loopscale.stepping import Looped, Tokens

Batch = Tensor | Sequence[Tensor]  # (batch, seq + 1) tokens, or a pair (input_ids, labels) of (batch, seq) ones


def inputs_and_labels(batch: Batch | Any) -> tuple[Tokens, Tokens]:
    """Return the (batch, seq) inputs and labels of a batch.

    -100 is no token: it may fill the end of a row, where causal models do not look, and stand for labels of a pair that
    do not count. Raises `InputError` for a batch of another form.
    """
    ids, labels = _pair(batch)
    return _filled(ids), labels


def device_of(model: Looped) -> torch.device:
    """Return where the model's weights lie."""
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return input ids and labels of a batch."""
    match batch:
        case Tensor() if batch.dtype == torch.long and batch.ndim == 2 and len(batch) and batch.shape[1] >= 2:
            return batch[:, :-1], batch[:, 1:]
        case (Tensor() as ids, Tensor() as labels) if (
            ids.dtype == labels.dtype == torch.long and ids.ndim == 2 and ids.numel() and ids.shape == labels.shape
        ):
            return ids, labels
    found = f"{batch.dtype} {list(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
    if isinstance(batch, list | tuple):
        found += f" of {len(batch)}"
    raise InputError(
        "a batch must be a LongTensor (batch, seq + 1) with at least 2 tokens a row, or a pair (input_ids, labels) of "
        f"LongTensors (batch, seq), got {found}."
    )


def _filled(ids: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Return the ids with token 0 where a row's end is filled with -100."""
    ignored = ids == IGNORED
    if bool((ignored[:, :-1] & ~ignored[:, 1:]).any()):
        raise InputError(
            f"a batch has {IGNORED} before tokens, so that the tokens there are lost: give a pair (input_ids, labels) "
            f"with {IGNORED} among the labels alone."
        )
    return ids.masked_fill(ignored, 0)
