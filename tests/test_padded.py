"""A small model at the sizes of a large one computes what it computed."""

import pytest
import torch

from benchmarks.padded import padded, padded_config
from loopscale.model import LoopedConfig
from tests.helpers import tiny_model

SMALL = {"position_embedding": "rope", "hidden_size": 16, "num_attention_heads": 2, "num_stack_layers": 2}


@pytest.mark.parametrize("fill", [0.0, 0.02])
def test_the_logits_stay(fill, unchecked_shapes):
    small = tiny_model(**SMALL, init="normal", initializer_range=0.3)
    with torch.no_grad():
        for weight in small.parameters():
            if weight.dim() == 1:  # norms
                weight += 0.3 * torch.randn_like(weight)
    sizes = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_stack_layers": 3,
        "intermediate_size": 256,
        "head_dim": 16,
    }
    config = LoopedConfig.from_dict(
        {**small.config.to_dict(), **sizes, "num_key_value_heads": 4, "rms_norm_eps": 2.5e-7}
    )
    large = padded(small, config, fill)
    ids = torch.arange(40).view(2, 20) % small.config.vocab_size
    torch.testing.assert_close(large(ids).logits, small(ids).logits, atol=1e-4, rtol=1e-4)
    assert bool((large.model.layers[2].self_attn.k_proj.weight != 0).any()) == bool(fill)


def test_a_preset_gives_the_sizes_and_the_model_the_rest():
    small = tiny_model(**SMALL, supervision="terminal").config
    large = padded_config(small, "44m")
    assert (large.hidden_size, large.num_stack_layers, large.vocab_size) == (512, 8, small.vocab_size)
    assert (large.num_loops, large.supervision) == (small.num_loops, "terminal")
    assert large.rms_norm_eps == small.rms_norm_eps * 16 / 512
