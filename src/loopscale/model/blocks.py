"""Layer: attention and feed-forward. It knows nothing of loops but its cache slot.

Letters: B batch, T tokens, D hidden, N heads, H head size.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu
from transformers.modeling_layers import GradientCheckpointingLayer

from loopscale.errors import InputError
from loopscale.hf import attend, kernel_device, rotate
from loopscale.model.config import LoopedConfig
from loopscale.model.parts import RESIDUALS, LayerSizes, build_part
from loopscale.stepping import Context, State
from loopscale.system.precision import autocast_dtype

Heads = Float[Tensor, "batch heads seq head_size"]


@final
class BranchLinear(nn.Linear):
    """Linear map of a branch. Its initial weight is `initial_gain` times the model's usual one."""

    def __init__(self, inputs: int, outputs: int, initial_gain: float, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.initial_gain = initial_gain


class LoopedAttention(nn.Module):
    """Causal multi-head (or grouped-query) attention through transformers' attention interface."""

    is_causal = True

    def __init__(self, config: LoopedConfig, initial_gain: float = 1.0, value_embedding: bool = False) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None and config.head_dim is not None  # the config fills them
        self.config = config
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        hidden, bias = config.hidden_size, config.attention_bias
        q_size, kv_size = (n * self.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(hidden, q_size, bias)
        self.k_proj = nn.Linear(hidden, kv_size, bias)
        self.v_proj = BranchLinear(hidden, kv_size, initial_gain, bias)
        self.o_proj = BranchLinear(q_size, hidden, initial_gain, config.attention_output_bias)
        eps = config.rms_norm_eps if config.qk_norm_eps is None else config.qk_norm_eps
        self.norm_of = None if not config.qk_norm else "projection" if config.qk_norm_whole else "head"
        self.q_norm, self.k_norm = (
            nn.RMSNorm(size if config.qk_norm_whole else self.head_dim, eps=eps) if config.qk_norm else nn.Identity()
            for size in (q_size, kv_size)
        )
        self.values = ValueEmbedding(config) if value_embedding else None

    def forward(self, x: State, slot: int, context: Context) -> tuple[State, Heads | None]:
        """Attend over this call's tokens and those the cache holds in `slot`.

        Beside the result comes the attention map, (batch, heads, seq, seen), where the implementation has one (eager).
        """
        B, T, _ = x.shape

        def heads(y: Tensor) -> Heads:
            return y.view(B, T, -1, self.head_dim).transpose(1, 2)

        q, k, v = self.q_proj(x), self.k_proj(x), heads(self.v_proj(x))
        if self.norm_of == "projection":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = heads(q), heads(k)
        if self.values is not None:
            v = v + heads(self.values(x, context).to(v.dtype))
        if self.norm_of == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if q.dtype != v.dtype or k.dtype != v.dtype:  # a norm under autocast may widen
            q, k = q.to(v.dtype), k.to(v.dtype)
        if context.rotary is not None:
            q, k = rotate(q, k, *context.rotary)
        if context.cache is not None:
            k, v = context.cache.update(k, v, slot)
        if context.attention_mask is None and context.cache is None and _kernel_is_slow(q, k):
            y, seen = plain_causal_attention(q, k, v).transpose(1, 2), None
        else:
            y, seen = attend(self, q, k, v, context.attention_mask, self.head_dim**-0.5)
        return self.o_proj(y.reshape(B, T, -1)), seen


@final
class ValueEmbedding(nn.Module):
    """2 sigmoid(G x) t: an embedding t of the token, which a gate per head adds to the values (Parcae, nanochat).

    The gate reads the first 32 channels.
    """

    channels: ClassVar[int] = 32

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None and config.head_dim is not None  # the config fills them
        self.embedding = nn.Embedding(config.vocab_size, config.num_key_value_heads * config.head_dim)
        self.gate = nn.Linear(min(self.channels, config.hidden_size), config.num_key_value_heads, bias=False)

    def forward(self, x: State, context: Context) -> Float[Tensor, "batch seq values"]:
        """Return what is added to the values, (batch, seq, key-value heads * head size)."""
        if context.tokens is None:
            raise InputError(
                "this model embeds tokens anew among its values: give input_ids, not inputs_embeds, and make context = "
                "model.context(ids) for its verbs."
            )
        gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate.in_features]))
        t = self.embedding(context.tokens).unflatten(-1, (gate.shape[-1], -1))
        return (gate[..., None] * t).flatten(-2)


def _kernel_is_slow(q: Tensor, k: Tensor) -> bool:
    """Return whether torch's CPU attention kernel is slower than the formula: its bf16 backward is, by 2 to 3 times."""
    return kernel_device(q) == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and q.shape == k.shape


def plain_causal_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Return softmax(q k^T / sqrt(H)) v under a causal mask, in as few passes over the scores as autograd allows."""
    B, N, T, H = q.shape
    mask = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    q, k, v = (x.reshape(B * N, T, H) for x in (q, k, v))
    scores = torch.baddbmm(mask.expand(B * N, T, T), q, k.transpose(1, 2), alpha=H**-0.5)
    return torch.bmm(scores.softmax(-1), v).view(B, N, T, H)


def cast(x: State, dtype: torch.dtype | None) -> State:
    """Cast to autocast's precision where it is on: once, instead of once for every matrix that reads the tensor."""
    return x if dtype is None else x.to(dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LoopedConfig, initial_gain: float = 1.0) -> None:
        super().__init__()
        assert config.intermediate_size is not None  # the config fills it
        hidden, inside, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = BranchLinear(hidden, inside, initial_gain, bias)
        self.up_proj = BranchLinear(hidden, inside, initial_gain, bias)
        self.down_proj = BranchLinear(inside, hidden, initial_gain, bias)

    def forward(self, x: State) -> State:
        """Map (batch, seq, hidden) to the same shape."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


def relu2(x: Tensor) -> Tensor:
    """Return the square of ReLU."""
    return relu(x).square()


class TwoMaps(nn.Module):
    """Feed-forward of two maps: down(f(up(x))), f the exact GELU, its tanh form, which GPT-2 has, or ReLU squared."""

    functions: ClassVar[Mapping[str, Callable[[Tensor], Tensor]]] = {
        "gelu": gelu,
        "gelu_tanh": partial(gelu, approximate="tanh"),
        "relu2": relu2,
    }

    def __init__(self, config: LoopedConfig, initial_gain: float = 1.0) -> None:
        super().__init__()
        assert config.intermediate_size is not None  # the config fills it
        self.function = self.functions[config.mlp]
        self.up_proj = BranchLinear(config.hidden_size, config.intermediate_size, initial_gain, config.mlp_bias)
        self.down_proj = BranchLinear(config.intermediate_size, config.hidden_size, initial_gain, config.mlp_bias)

    def forward(self, x: State) -> State:
        """Map (batch, seq, hidden) to the same shape."""
        return self.down_proj(self.function(self.up_proj(x)))


FEED_FORWARD = {"swiglu": SwiGLU, **dict.fromkeys(TwoMaps.functions, TwoMaps)}


class LoopedLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each joined to the stream by a residual part."""

    def __init__(self, config: LoopedConfig, sizes: LayerSizes, value_embedding: bool = False) -> None:
        super().__init__()
        joins = [build_part("residual", config.residual_part, RESIDUALS, sizes) for _ in range(2)]
        # the norms' names are those of checkpoints, and their order that of optimizers' states
        self.input_layernorm = joins[0].norms[0]
        self.self_attn = LoopedAttention(config, joins[0].initial_gain, value_embedding)
        self.attention_output_norm = joins[0].norms[1]
        self.post_attention_layernorm = joins[1].norms[0]
        self.mlp = FEED_FORWARD[config.mlp](config, joins[1].initial_gain)
        self.mlp_output_norm = joins[1].norms[1]
        self.attention_residual, self.mlp_residual = joins

    def forward(self, x: State, slot: int, context: Context) -> tuple[State, Heads | None]:
        """Apply attention and feed-forward; return the attention map beside the stream."""
        seen: Heads | None = None
        dtype = autocast_dtype(x.device.type)

        def attention(y: Tensor) -> Tensor:
            nonlocal seen
            y, seen = self.self_attn(cast(y, dtype), slot, context)
            return y

        x = self.attention_residual(x, attention)
        return self.mlp_residual(x, lambda y: self.mlp(cast(y, dtype))), seen


def build_layers(config: LoopedConfig, count: int, visits: int = 1, first: int = 0) -> nn.ModuleList:
    """Return `count` layers that run `visits` times each in a call of the trained loops.

    `first` is the number of the first of them, where every layer counts once, in the order in which they run.
    """
    sizes = config.layer_sizes(count, visits)
    numbers = range(first, first + count)
    return nn.ModuleList(LoopedLayer(config, sizes, config.has_value_embedding(i)) for i in numbers)
