"""A small trained model at the sizes of a large one: what it computes is its own, what it costs is the large one's.

python -m benchmarks.padded RUN_DIR OUT_DIR [--preset 44m] [--fill 0.02]. Channels, heads and layers that the small one
lacks are zeros, and products cost what they cost whatever stands in them: so the speed of a size is measured on exits
that agree as often as trained ones do. With `--fill` what reads is drawn and what writes is zero: a start from which
the large one learns (`loopscale train --init_from OUT_DIR`). Both are run on a text, and must agree.
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.train import preset_run

Matrix = Shaped[Tensor, "rows columns"]
MARGIN = 1e-4  # of the logits of both, against the largest


@torch.no_grad()
def padded(model: Any, config: Any, fill: float = 0.0) -> LoopedForCausalLM:
    """Return a model of the sizes of `config` with the logits of `model`: RoPE, RMSNorm, pre-norm, tied embedding.

    `fill` is the standard deviation of what is new in the matrices that read, so that training finds a gradient.
    """
    small: Any = model.config
    ratio = config.hidden_size / small.hidden_size
    large: Any = LoopedForCausalLM(config).eval()
    for name, weight in large.named_parameters():
        reads = ".layers." in name and not name.endswith(("o_proj.weight", "down_proj.weight"))
        if weight.dim() == 1:
            weight.fill_(1)
        else:
            weight.normal_(std=fill if reads else 0.0)
    queries, values = list(_rows(small, config, rotated=True)), list(_rows(small, config, rotated=False))
    sharper = math.sqrt(config.head_dim / small.head_dim)  # attention divides by the root of the head's size
    for own, other in zip(model.model.layers, large.model.layers, strict=False):
        other.self_attn.q_proj.weight[: small.num_attention_heads * config.head_dim] = 0  # or drawn keys would be asked
        _place(own.self_attn.q_proj.weight * sharper, other.self_attn.q_proj.weight, queries)
        _place(own.self_attn.k_proj.weight, other.self_attn.k_proj.weight, queries)
        _place(own.self_attn.v_proj.weight, other.self_attn.v_proj.weight, values)
        _place(own.self_attn.o_proj.weight.T, other.self_attn.o_proj.weight.T, values)
        for name in ("gate_proj", "up_proj", "down_proj"):
            matrix = own.mlp.get_submodule(name).weight
            _place(matrix, other.mlp.get_submodule(name).weight, range(len(matrix)))
        for name in ("input_layernorm", "post_attention_layernorm"):
            _place_norm(own.get_submodule(name).weight, other.get_submodule(name).weight, ratio)
    _place(model.model.embed_tokens.weight, large.model.embed_tokens.weight, range(small.vocab_size))
    _place_norm(model.readout_norm.norm.weight, large.readout_norm.norm.weight, ratio)
    return large


def _rows(small: Any, large: Any, rotated: bool) -> Iterator[int]:
    """Yield where a projection's rows go, head by head; a rotated pair goes where the larger head turns as fast."""
    half, spread = small.head_dim // 2, large.head_dim // small.head_dim
    for head in range(small.num_attention_heads):
        for i in range(small.head_dim):
            place = (i % half) * spread + (i // half) * (large.head_dim // 2) if rotated else i
            yield head * large.head_dim + place


def _place(matrix: Matrix, into: Matrix, rows: Iterable[int]) -> None:
    into[torch.tensor(list(rows)), : matrix.shape[1]] = matrix


def _place_norm(weight: Tensor, into: Tensor, ratio: float) -> None:
    """Place a norm's weight: the mean square over `ratio` times as many channels is that much smaller."""
    into[: len(weight)] = weight / math.sqrt(ratio)


def padded_config(small: LoopedConfig, preset: str) -> LoopedConfig:
    """Return the sizes of a preset with what is not a size from the small model."""
    sizes = preset_run(preset).with_model(position_embedding="rope").model_config(small.vocab_size)
    kept = ("num_loops", "rope_parameters", "max_position_embeddings", "supervision", "norm_penalty_coef", "dropout")
    values = {**sizes.to_dict(), **{name: getattr(small, name) for name in kept}, "trained_loops": small.trained_loops}
    epsilon = small.rms_norm_eps * small.hidden_size / sizes.hidden_size
    return LoopedConfig.from_dict({**values, "rms_norm_eps": epsilon})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("out_dir")
    parser.add_argument("--preset", default="44m")
    parser.add_argument("--fill", type=float, default=0.0)
    args = parser.parse_args()
    model: Any = load_model(args.run_dir)
    large: Any = padded(model, padded_config(model.config, args.preset), args.fill)
    ids = torch.arange(96)[None] * 7919 % model.config.vocab_size
    with torch.no_grad():
        own, other = model(ids).logits, large(ids).logits
    difference = float((own - other).abs().max())
    assert difference <= MARGIN * float(own.abs().max()), f"the logits differ by {difference}"
    large.generation_config = model.generation_config
    large.save_pretrained(args.out_dir)
    load_tokenizer_of(args.run_dir).save_pretrained(args.out_dir)
    print(f"{sum(p.numel() for p in large.parameters())} parameters; logits of 96 tokens differ by {difference:.2g}")


if __name__ == "__main__":
    main()
