"""The honest baseline: a looped model as a textbook writes it, on the same weights.

Eager attention with a materialised mask, K separate float32 heads with all their logits, loss and norm read out
to Python after every loop. Float32 on a CPU, autocast on a GPU, as published training scripts do.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from loopscale import LoopedForCausalLM


def plain_loss(model: LoopedForCausalLM, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over loops."""
    stack: Any = model.model
    p = model.config.dropout
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    h = F.dropout(stack.embed_tokens(input_ids) + stack.embed_positions(positions), p, model.training)
    T = input_ids.shape[1]
    mask = torch.full((T, T), -math.inf, device=h.device).triu(1)
    losses, log = [], []
    for k in range(model.num_loops):
        for layer in stack.layers:
            h = h + F.dropout(_attention(layer.self_attn, layer.input_layernorm(h), mask), p, model.training)
            x = layer.post_attention_layernorm(h)
            y = layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x))
            h = h + F.dropout(y, p, model.training)
        logits = F.linear(model.readout_state(h, k), model.lm_head.weight).float()
        losses.append(F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
        log.append((losses[-1].item(), h.norm(dim=-1).mean().item()))
    return torch.stack(losses).mean()


def _attention(block: Any, x: Tensor, mask: Tensor) -> Tensor:
    B, T, D = x.shape
    q, k, v = (
        proj(x).view(B, T, -1, block.head_dim).transpose(1, 2) for proj in (block.q_proj, block.k_proj, block.v_proj)
    )
    weights = ((q @ k.transpose(2, 3)) / math.sqrt(block.head_dim) + mask).softmax(-1)
    return block.o_proj((weights @ v).transpose(1, 2).reshape(B, T, D))
