"""Looped models as other people write them, small enough for any test."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class TheirLoop(nn.Module):
    """A loop of two layers; `recompute` is how it checkpoints, if it does: reentrant or not."""

    def __init__(self, loops=3, width=16, recompute=None, read=None):
        super().__init__()
        self.tokens = nn.Embedding(23, width)
        self.core = nn.ModuleList([Layer(width), Layer(width)])
        self.norm = nn.RMSNorm(width) if read is None else read
        self.head = nn.Linear(width, 23)
        self.loops, self.recompute = loops, recompute

    def forward(self, ids, attention_mask=None):
        h = self.tokens(ids)
        for _ in range(self.loops):
            for layer in self.core:
                h = layer(h) if self.recompute is None else checkpoint(layer, h, use_reentrant=self.recompute)
        return self.head(self.norm(h))


def a_batch(seed=0):
    return torch.randint(0, 23, (2, 8), generator=torch.Generator().manual_seed(seed))


def train(model, steps=4, accumulate=1, rate=1e-2, between=None, optimizer=None):
    """A plain loop, which knows nothing of being watched."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), rate)
    for step in range(steps):
        for part in range(accumulate):
            ids = a_batch(step * accumulate + part)
            loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if between is not None:
            between(model)
