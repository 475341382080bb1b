"""A stand-in for the package `parcae_lm`: a config and a model with the public modules that the adapter reads."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace

import torch
from torch import nn


@dataclass
class ParcaeConfig:
    n_embd: int = 12
    recurrent_embedding_dimension: int = 16
    padded_vocab_size: int = 29
    block_size: int = 24
    mean_recurrence: int = 4
    prelude_norm: bool = True
    use_fused_head: str = "pytorch"
    logit_softcap: float | None = 5.0

    def __post_init__(self):
        self.init = SimpleNamespace(logit_scale=0.5)

    def construct_model(self):
        return ToyParcae(self)

    def to_dict(self):
        return {**asdict(self), "_class_name": "ParcaeConfig"}


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.mix = nn.Linear(size, size)

    def forward(self, x, rotary, mask, ve=None):
        past = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return x + torch.tanh(self.mix(past)) + rotary + (0 if ve is None else ve.mean(-1, keepdim=True))


class Injection(nn.Module):
    def __init__(self, state, size):
        super().__init__()
        self.decay, self.into = nn.Parameter(torch.full((state,), 0.5)), nn.Linear(size, state, bias=False)

    def forward(self, x, e):
        return x * self.decay + self.into(e)


class ToyParcae(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.emb_scale = config, 2.0
        size, state, vocab = config.n_embd, config.recurrent_embedding_dimension, config.padded_vocab_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, size),
                "prelude": nn.ModuleList([Block(size)]),
                "ln_prelude": nn.RMSNorm(size),
                "adapter": Injection(state, size),
                "core_block": nn.ModuleList([Block(state), Block(state)]),
                "C": nn.Linear(state, size, bias=False),
                "coda": nn.ModuleList([Block(size)]),
                "ln_f": nn.RMSNorm(size),
            }
        )
        self.value_embeds = nn.ModuleDict({"1": nn.Embedding(vocab, 4), "3": nn.Embedding(vocab, 4)})
        self.lm_head = nn.Linear(size, vocab, bias=False)
        self.register_buffer("freqs_cis", torch.linspace(0, 1, config.block_size)[None, :, None])

    def initialize_state(self, input_embeds):
        shape = (*input_embeds.shape[:-1], self.config.recurrent_embedding_dimension)
        return torch.randn(shape, dtype=input_embeds.dtype)
