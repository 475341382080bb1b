"""Looped models that are not ours, and a text for tests."""

import torch
from torch import Tensor, nn

from loopscale.errors import InputError


class Injecting(nn.Module):
    """Injects its input at every loop and decodes with it: bound to the rows of the latest `embed` call."""

    def __init__(self, vocab: int = 31, hidden: int = 16, num_loops: int = 3) -> None:
        super().__init__()
        self.num_loops = num_loops
        self.table = nn.Embedding(vocab, hidden)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(2 * hidden, vocab)
        self.latest = torch.empty(0)
        self.rows_stepped = 0

    def embed(self, input_ids: Tensor) -> Tensor:
        self.latest = self.table(input_ids)
        return torch.zeros_like(self.latest)

    def step(self, h: Tensor, k: int) -> Tensor:
        self.rows_stepped += len(h)
        return h + torch.tanh(self.mix(self._with_input(h)))

    def carry(self, z: Tensor, k: int) -> Tensor:
        return 0.9 * z

    def readout(self, z: Tensor, k: int) -> Tensor:
        return self.head(self._with_input(z))

    def _with_input(self, h: Tensor) -> Tensor:
        if h.shape != self.latest.shape:
            raise InputError("another batch than that of the latest embed")
        return torch.cat([h, self.latest], -1)


def text(windows: int = 6, length: int = 12, vocab: int = 31) -> Tensor:
    """Return random windows (windows, length + 1)."""
    return torch.randint(0, vocab, (windows, length + 1), generator=torch.Generator().manual_seed(1))
