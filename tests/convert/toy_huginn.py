"""A Huginn computed from its state dict, written anew from arXiv 2502.05171: complex rotations, one norm twice."""

from typing import Any

import torch
from torch import Tensor

CONFIG: dict[str, Any] = {
    "model_type": "huginn_raven",
    "n_embd": 32,
    "n_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 37,
    "block_size": 32,
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 2,
    "n_layers_in_coda": 1,
    "mean_recurrence": 3,
    "norm_eps": 1e-6,
    "rope_base": 50_000,
    "qk_bias": True,
    "tie_embeddings": True,
    "injection_type": "linear",
    "bias": False,
}


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under Huginn's names, in float64."""
    seeded = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=seeded, dtype=torch.float64) * 0.3

    D, inside, N = config["n_embd"], config["intermediate_size"], config["n_heads"]
    state = {"transformer.wte.weight": draw(config["vocab_size"], D), "transformer.adapter.weight": draw(D, 2 * D)}
    state["transformer.ln_f.weight"] = 1 + draw(D)
    if not config["tie_embeddings"]:
        state["lm_head.weight"] = draw(config["vocab_size"], D)
    groups = {"prelude": "prelude", "core_block": "recurrent_block", "coda": "coda"}
    for group, field in groups.items():
        for i in range(config[f"n_layers_in_{field}"]):
            prefix = f"transformer.{group}.{i}."
            state |= {f"{prefix}norm_{n}.weight": 1 + draw(D) for n in range(1, 5)}
            state |= {f"{prefix}attn.Wqkv.weight": draw(3 * D, D), f"{prefix}attn.proj.weight": draw(D, D)}
            state |= {f"{prefix}mlp.fc.weight": draw(2 * inside, D), f"{prefix}mlp.proj.weight": draw(D, inside)}
            if config["qk_bias"]:
                state[f"{prefix}attn.qk_bias"] = draw(2, 1, N, D // N)
    return state


class ToyHuginn:
    """The logits of every exit, from a state of zeros."""

    def __init__(self, state: dict[str, Tensor], config: dict[str, Any]) -> None:
        self.state, self.config = state, config
        size = config["n_embd"] // config["n_heads"]
        turns = 1.0 / config["rope_base"] ** (torch.arange(0, size, 2) / size)
        angles = torch.arange(config["block_size"])[:, None] * turns
        self.turns = torch.complex(angles.cos(), angles.sin()).to(torch.complex128)  # of float32, as Huginn has them

    def __call__(self, ids: Tensor, num_loops: int) -> list[Tensor]:
        """Return the logits of exits 1 .. num_loops."""
        table = self.state["transformer.wte.weight"]
        e = self.layers("prelude", table[ids] * self.config["n_embd"] ** 0.5)
        h, exits = torch.zeros_like(e), []
        for _ in range(num_loops):
            h = self.layers("core_block", torch.cat([h, e], -1) @ self.state["transformer.adapter.weight"].T)
            x = self.norm(self.layers("coda", self.norm(h, "ln_f.")), "ln_f.")
            exits.append(x @ self.state.get("lm_head.weight", table).T)
        return exits

    def layers(self, group: str, x: Tensor) -> Tensor:
        i = 0
        while f"transformer.{group}.{i}.norm_1.weight" in self.state:
            at = f"{group}.{i}."
            x = self.norm(x + self.attention(self.norm(x, f"{at}norm_1."), at), f"{at}norm_2.")
            gate, up = (self.norm(x, f"{at}norm_3.") @ self.weight(f"{at}mlp.fc.").T).chunk(2, -1)
            x = self.norm(x + (gate * gate.sigmoid() * up) @ self.weight(f"{at}mlp.proj.").T, f"{at}norm_4.")
            i += 1
        return x

    def attention(self, x: Tensor, at: str) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (x @ self.weight(f"{at}attn.Wqkv.").T).view(B, T, 3, self.config["n_heads"], -1).unbind(2)
        if self.config["qk_bias"]:
            q, k = (y + bias for y, bias in zip((q, k), self.state[f"transformer.{at}attn.qk_bias"], strict=True))
        return self.mix(self.turned(q), self.turned(k), v) @ self.weight(f"{at}attn.proj.").T

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bqnh,bknh->bnqk", q, k) / q.shape[-1] ** 0.5
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return torch.einsum("bnqk,bknh->bqnh", scores.masked_fill(~seen, -torch.inf).softmax(-1), v).flatten(-2)

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.turns[: x.shape[1], None]).flatten(-2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config["norm_eps"]).sqrt() * self.weight(name)

    def weight(self, name: str) -> Tensor:
        return self.state[f"transformer.{name}weight"]
