"""A looped model with a prelude, a damped injection and an attention coda, behind the adapters' base."""

import torch
from torch import nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from loopscale.adapters import InjectedLoop
from loopscale.objective import Terminal

VOCAB, HIDDEN, POSITIONS = 29, 16, 24


class Block(nn.Module):
    """Pre-norm causal attention (one head) and feed-forward, each added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 2 * HIDDEN), nn.Linear(2 * HIDDEN, HIDDEN)

    def forward(self, x):
        q, k, v = self.qkv(rms_norm(x, x.shape[-1:])).chunk(3, dim=-1)
        x = x + self.out(scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(torch.relu(self.up(rms_norm(x, x.shape[-1:]))))


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.first, self.middle, self.last = Block(), Block(), Block()
        self.decay = nn.Parameter(torch.full((HIDDEN,), 0.5))

    def forward(self, tokens, num_loops):
        """The whole model in one go, as its own library would run it."""
        injected = self.first(self.embedding(tokens))
        state = torch.zeros_like(injected)
        for _ in range(num_loops):
            state = self.middle(state * self.decay + injected)
        return self.head(rms_norm(self.last(state), (HIDDEN,)))


class ToyLoop(InjectedLoop):
    family = "Toy"

    def __init__(self) -> None:
        super().__init__(ToyModel())
        self.num_loops = self.trained_loops = 3
        self.positions = POSITIONS
        self.supervision = Terminal()

    def prelude(self, tokens):
        return self.model.first(self.model.embedding(tokens))

    def initial_state(self, injected):
        return torch.zeros_like(injected)

    def core(self, h, k, injected, tokens):
        return self.model.middle(h * self.model.decay + injected)

    def coda(self, z, tokens):
        return self.model.head(rms_norm(self.model.last(z), (HIDDEN,)))
