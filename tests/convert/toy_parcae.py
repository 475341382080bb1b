"""A Parcae computed from its state dict, written anew: damped states, values with embeddings of their tokens."""

from typing import Any

import torch
from torch import Tensor

from tests.convert.toy_huginn import ToyHuginn

CONFIG: dict[str, Any] = {
    "_class_name": "ParcaeConfig",
    "n_embd": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 37,
    "padded_vocab_size": 37,
    "block_size": 32,
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 2,
    "n_layers_in_coda": 1,
    "mean_recurrence": 3,
    "mean_backprop_depth": 2,
    "recurrent_embedding_dimension": 32,
    "recurrent_intermediation_embedding_dimension": 24,
    "norm_eps": 1e-5,
    "injection_type": "diagonal",
    "block_class_name": "TransformerPreNormBlock",
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "BaseMLP",
    "nonlin_name": "ReLU2",
    "prelude_norm": True,
    "qk_norm": True,
    "bias": False,
    "tie_embeddings": True,
    "state_init": "zero",
    "rope_settings": {"use_rope": True, "rope_base": 50_000.0},
}
GROUPS = {"prelude": "prelude", "core_block": "recurrent_block", "coda": "coda"}


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under Parcae's names, in float64."""
    seeded = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=seeded, dtype=torch.float64) * 0.3

    D, inside, V, N = config["n_embd"], config["intermediate_size"], config["vocab_size"], config["num_attention_heads"]
    state = {
        "transformer.wte.weight": draw(V, D),
        "transformer.adapter.B": draw(D, D),
        "transformer.C.weight": draw(D, D),
    }
    state |= {f"transformer.adapter.{name}": draw(D) for name in ("A_log", "dt_bias")}
    state |= {f"transformer.{name}.weight": 1 + draw(D) for name in ("ln_prelude", "ln_f")}
    state["lm_head.weight"] = state["transformer.wte.weight"] if config["tie_embeddings"] else draw(V, D)
    numbered = [(g, i) for g, field in GROUPS.items() for i in range(config[f"n_layers_in_{field}"])]
    for at, (group, i) in enumerate(numbered):
        prefix = f"transformer.{group}.{i}."
        state |= {f"{prefix}norm_{n}.weight": 1 + draw(D) for n in (1, 2)}
        state |= {f"{prefix}attn.c_{name}.weight": draw(D, D) for name in ("q", "k", "v", "proj")}
        state |= {f"{prefix}mlp.fc.weight": draw(inside, D), f"{prefix}mlp.proj.weight": draw(D, inside)}
        if (len(numbered) - 1 - at) % 2 == 0:
            state |= {f"value_embeds.{at}.weight": draw(V, D), f"{prefix}attn.ve_gate.weight": draw(N, 32)}
    return state


class ToyParcae(ToyHuginn):
    """The logits of every exit, from a state of zeros."""

    def __init__(self, state: dict[str, Tensor], config: dict[str, Any]) -> None:
        super().__init__(state, {**config, "n_heads": config["num_attention_heads"], "rope_base": 50_000})
        self.ids = torch.zeros(0)

    def __call__(self, ids: Tensor, num_loops: int) -> list[Tensor]:
        """Return the logits of exits 1 .. num_loops."""
        self.ids = ids
        e = self.norm(self.blocks("prelude", self.weight("wte.")[ids], 0), "ln_prelude.")
        adapter = {name: self.state[f"transformer.adapter.{name}"] for name in ("A_log", "dt_bias", "B")}
        dt = torch.log1p(adapter["dt_bias"].exp())
        first = self.config["n_layers_in_prelude"]
        h, exits = torch.zeros_like(e), []
        for _ in range(num_loops):
            h = torch.exp(-dt * adapter["A_log"].exp()) * h + dt * (e @ adapter["B"].T)
            h = self.blocks("core_block", h, first)
            x = self.blocks("coda", h @ self.weight("C.").T, first + self.config["n_layers_in_recurrent_block"])
            exits.append(self.norm(x, "ln_f.") @ self.state["lm_head.weight"].T)
        return exits

    def blocks(self, group: str, x: Tensor, first: int) -> Tensor:
        for i in range(self.config[f"n_layers_in_{GROUPS[group]}"]):
            at = f"{group}.{i}."
            x = x + self.attend(self.norm(x, f"{at}norm_1."), at, first + i)
            inside = (self.norm(x, f"{at}norm_2.") @ self.weight(f"{at}mlp.fc.").T).clamp_min(0)
            x = x + (inside**2 / 2) @ self.weight(f"{at}mlp.proj.").T
        return x

    def attend(self, x: Tensor, at: str, number: int) -> Tensor:
        B, T, _ = x.shape
        q, k, v = ((x @ self.weight(f"{at}attn.c_{n}.").T).view(B, T, self.config["n_heads"], -1) for n in "qkv")
        table = self.state.get(f"value_embeds.{number}.weight")
        if table is not None:
            gate = 2 * (x[..., :32] @ self.weight(f"{at}attn.ve_gate.").T).sigmoid()
            v = v + gate[..., None] * table[self.ids].view_as(v)
        q, k = (self.unit(self.turned(y)) for y in (q, k))
        return self.mix(q, k, v) @ self.weight(f"{at}attn.c_proj.").T

    def unit(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
