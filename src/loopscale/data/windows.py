"""Windows: rows of sequence_length + 1 tokens over one flat array, and the batches made of them."""

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

from loopscale.data.tokens import Tokens
from loopscale.errors import InputError


@final
class Windows(Dataset[Tensor]):
    """Row i is tokens[i * stride : i * stride + sequence_length + 1]: inputs and, one further, labels.

    Rows that overlap share their memory; nothing is copied before a row is asked for. A remainder at the end
    that fills no window is left out.

    Args:
        tokens: the text.
        sequence_length: tokens the model reads in a row.
        stride: tokens from one row's start to the next; `sequence_length` predicts each token once.
        label: what the text is called in an error.

    Raises:
        InputError: the text fills no window, or a length is below 1.
    """

    def __init__(self, tokens: Tokens, sequence_length: int, stride: int, label: str = "the text") -> None:
        if sequence_length < 1 or stride < 1:
            raise InputError(f"sequence_length and stride must be at least 1, not {sequence_length} and {stride}.")
        if len(tokens.ids) <= sequence_length:
            raise InputError(
                f"{label} is too short: {len(tokens.ids):,} tokens, but one window of "
                f"sequence_length {sequence_length} takes {sequence_length + 1:,}: give more text or a "
                "shorter window."
            )
        self.tokens = tokens
        self.sequence_length = sequence_length
        self.stride = stride
        self.label = label
        self._rows = np.lib.stride_tricks.sliding_window_view(tokens.ids, sequence_length + 1)[::stride]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Int64[Tensor, " length"]:
        return torch.from_numpy(self._rows[index].astype(np.int64))

    def __getitems__(self, indices: Sequence[int]) -> list[Int64[Tensor, " length"]]:
        """Return several rows from one read; PyTorch's DataLoader asks so, and collates the list."""
        return list(self.rows(indices))

    def rows(self, indices: Sequence[int]) -> Int64[Tensor, "batch length"]:
        """Return several rows as one tensor."""
        return torch.from_numpy(self._rows[np.asarray(indices, dtype=np.int64)].astype(np.int64))

    def __reduce__(self) -> tuple[type["Windows"], tuple[Any, ...]]:
        """Pickle what the rows are made from: pickling the view would write every row out."""
        return Windows, (self.tokens, self.sequence_length, self.stride, self.label)


def collate(rows: Sequence[Tensor] | Tensor) -> dict[str, Int64[Tensor, "batch seq"]]:
    """Make a batch for transformers' Trainer: `shift_labels` are already one token ahead of `input_ids`."""
    batch = torch.stack(list(rows))  # (B, T + 1)
    return {"input_ids": batch[:, :-1].contiguous(), "shift_labels": batch[:, 1:].contiguous()}


def batches(
    windows: Windows, batch_size: int, limit: int | None = None, *, shuffle: bool = False, seed: int = 0
) -> Iterator[Int64[Tensor, "batch length"]]:
    """Yield LongTensors (batch, sequence_length + 1) in order: inputs are `[:, :-1]`, labels `[:, 1:]`.

    Args:
        windows: where the rows come from.
        batch_size: rows per batch; the last one may have fewer.
        limit: at most so many batches, of rows spread evenly over the text; None takes every row.
        shuffle: the same rows in an order of chance, as one epoch of training takes them.
        seed: of that order.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise InputError(f"batch_size and limit must be at least 1, not {batch_size} and {limit}.")
    wanted = len(windows) if limit is None else min(len(windows), limit * batch_size)
    rows = [row * len(windows) // wanted for row in range(wanted)]
    if shuffle:
        order = torch.randperm(wanted, generator=torch.Generator().manual_seed(seed))
        rows = [rows[place] for place in order.tolist()]
    for start in range(0, wanted, batch_size):
        yield windows.rows(rows[start : start + batch_size])
