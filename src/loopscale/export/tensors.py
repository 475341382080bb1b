"""Tensors of a GGUF file: a Nanbeige's weights under llama.cpp's names, in its order of rotary channels.

llama.cpp turns neighbouring channels of a head together; models of transformers turn channel i with i + H / 2.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_tensors(
    weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[tuple[str, Shaped[Tensor, "..."]]]:
    """Yield llama.cpp's name and the tensor of every weight of a Nanbeige, in float32 on the CPU."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, weight in weights.items():
        stem = name.removesuffix(".weight")
        tensor = weight.detach().float().cpu()
        if stem in NAMES:
            yield f"{NAMES[stem]}.weight", tensor
            continue
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        kind = LAYER_NAMES[part]
        yield f"blk.{layer}.{kind}.weight", paired(tensor, heads[kind]) if kind in heads else tensor


def paired(weight: Shaped[Tensor, "rows hidden"], heads: int) -> Shaped[Tensor, "rows hidden"]:
    """Return the rows of every head reordered: those that rotate together stand next to each other."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
