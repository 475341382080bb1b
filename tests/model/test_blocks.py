from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from loopscale import InputError
from loopscale.decode import speculative_generate
from loopscale.model.blocks import plain_causal_attention
from tests.helpers import tiny_config, tiny_model

IDS = torch.arange(24).view(2, 12) * 7 % 31
GPT2 = {
    **{"block_norm": "layernorm", "readout": "layernorm", "mlp": "gelu_tanh", "rms_norm_eps": 1e-5},
    **dict.fromkeys(("attention_bias", "attention_output_bias", "mlp_bias"), True),
}
QWEN3 = {"position_embedding": "rope", "qk_norm": True, "head_dim": 10, "num_key_value_heads": 1}
GPT2_NAMES = {
    **{"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.c_proj": "self_attn.o_proj"},
    **{"mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj"},
    **{name: f"self_attn.{name}_proj" for name in "qkv"},
}
D, L, INSIDE = 16, 2, 64  # of the tiny model


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"attention_bias": True}, L * 3 * D),
        ({"attention_bias": True, "num_key_value_heads": 1}, L * (2 * D - D * D)),
        ({"attention_output_bias": True}, L * D),
        ({"qk_norm": True}, L * 2 * 8),
        ({"head_dim": 10}, L * 4 * D * (20 - D)),
        ({"mlp": "gelu"}, -L * D * INSIDE),
        ({"mlp": "gelu", "mlp_bias": True}, L * (INSIDE + D - D * INSIDE)),
        ({"mlp_bias": True}, L * (2 * INSIDE + D)),
        ({"mlp": "relu2"}, -L * D * INSIDE),
        ({"value_embeddings": True}, L // 2 * (31 * D + 2 * D)),  # every second layer; the gate reads all 16 channels
        ({"prelude_norm": True}, D),
    ],
)
def test_every_option_of_a_block_has_its_parameters_and_they_learn(fields, more):
    model = tiny_model(**fields)
    assert model.num_parameters() == tiny_model().num_parameters() + more
    model(IDS, labels=IDS).loss.backward()
    # a bias of all keys moves no attention weight
    still = [n for n, p in model.named_parameters() if not p.grad.any() or (p.grad.abs().max() < 1e-7)]
    assert all(name.endswith("k_proj.bias") for name in still)


PARCAE = {
    **{"mlp": "relu2", "qk_norm": True, "qk_norm_eps": 1e-7, "value_embeddings": True, "prelude_norm": True},
    **{"num_prelude_layers": 1, "num_coda_layers": 2, "injection": "diagonal", "coda_input": "linear"},
    **{"position_embedding": "rope", "num_key_value_heads": 1},
}


@pytest.mark.parametrize("fields", [GPT2, QWEN3, PARCAE, {"mlp": "gelu", "head_dim": 6, "attention_bias": True}])
def test_blocks_of_every_shape_decode_the_same_with_a_cache(fields):
    model = tiny_model(**fields)
    options = {"max_new_tokens": 8, "do_sample": False}
    cached = model.generate(IDS, **options)
    assert torch.equal(cached, model.generate(IDS, use_cache=False, **options))
    assert torch.equal(cached, model.generate(IDS, cache_implementation="static", **options))


def test_two_loops_of_a_gpt_2_s_core_are_its_copies():
    model = tiny_model(num_loops=2, **GPT2).double()
    sizes = {"vocab_size": 31, "n_embd": D, "n_layer": 2 * L, "n_head": 2, "n_positions": 48}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    randomize(model)
    own = model.state_dict()
    state = {"wte.weight": own["lm_head.weight"], "wpe.weight": own["model.embed_positions.weight"]}
    for kind in ("weight", "bias"):
        state[f"ln_f.{kind}"] = own[f"readout_norm.norm.{kind}"]
        for i in range(2 * L):
            layer = {name: own[f"model.layers.{i % L}.{name}.{kind}"] for name in GPT2_NAMES.values()}
            layer = {name: weight.T if weight.ndim == 2 else weight for name, weight in layer.items()}
            fused = torch.cat([layer[f"self_attn.{name}_proj"] for name in "qkv"], -1)
            placed = {name: layer[ours] for name, ours in GPT2_NAMES.items()} | {"attn.c_attn": fused}
            state |= {f"h.{i}.{name}.{kind}": placed[name] for name in placed if name not in "qkv"}
    theirs.double().eval().transformer.load_state_dict(state)
    torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits)


def test_two_loops_of_a_qwen_3_s_core_are_its_copies():
    model = tiny_model(num_loops=2, **QWEN3)
    randomize(model)
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            **{"vocab_size": 31, "hidden_size": D, "intermediate_size": INSIDE, "num_hidden_layers": 2 * L},
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10, "max_position_embeddings": 48},
            tie_word_embeddings=True,
        )
    )
    own = model.state_dict()
    state = {"model.embed_tokens.weight": own["lm_head.weight"], "lm_head.weight": own["lm_head.weight"]}
    state["model.norm.weight"] = own["readout_norm.norm.weight"]
    for name, weight in model.model.layers.state_dict().items():
        i, rest = name.split(".", 1)
        state |= {f"model.layers.{int(i) + k * L}.{rest}": weight for k in range(2)}
    theirs.eval().load_state_dict(state)
    torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits, atol=1e-5, rtol=1e-4)


def test_the_plain_formula_is_the_kernel_in_float64():
    q, k, v = (torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours, theirs = plain_causal_attention(q, k, v), scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs)
    up = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad(y, (q, k, v), up) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("heads", [{}, {"num_key_value_heads": 1}])
def test_bf16_training_stays_near_float32(heads):
    model = tiny_model(**heads)
    ids = torch.arange(40).view(2, 20) % 31
    exact = model(ids, labels=ids)
    exact.loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(ids, labels=ids)
    rough.loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(rough.loss, exact.loss, rtol=1e-2, atol=0)
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_the_cast_is_autocasts_own():
    model, seen = tiny_model(num_stack_layers=1, num_loops=1), []
    for branch in (model.model.layers[0].self_attn, model.model.layers[0].mlp):
        branch.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    model(torch.zeros(1, 2, dtype=torch.long))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, 2, dtype=torch.long))
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.bfloat16]


def randomize(model):
    """Give every parameter a value of its own, biases and norms too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)


def test_value_embeddings_are_heard_by_every_decoder():
    model = tiny_model(**PARCAE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".values." in name:
                weight.mul_(3)
    found = [name for name, _ in model.named_modules() if name.endswith(".values")]
    assert [name.split(".self_attn")[0] for name in found] == ["model.prelude.0", "model.layers.1", "model.coda.1"]
    prompts, options = IDS[:, :6] % 31, {"max_new_tokens": 6, "do_sample": False}
    expected = model.generate(prompts, **options)
    assert torch.equal(speculative_generate(model, prompts, 6).sequences, expected)
    with pytest.raises(InputError, match="embeds tokens anew among its values: give input_ids"):
        model(inputs_embeds=model.model.embed_tokens(IDS))
    with pytest.raises(InputError, match="make context"):
        model.step(torch.zeros(1, 3, D), 0)


def test_scaled_embeddings_are_those_of_larger_ones_and_heard_everywhere():
    scaled, plain = (tiny_model(embedding_scale=s, tie_word_embeddings=False).eval() for s in (4.0, 1.0))
    ids = torch.randint(0, 31, (2, 7))
    with torch.no_grad():
        plain.load_state_dict(scaled.state_dict())
        plain.model.embed_tokens.weight *= 4
        torch.testing.assert_close(scaled(ids).logits, plain(ids).logits)
        embeds = scaled.model.embed_tokens(ids)
        torch.testing.assert_close(scaled(inputs_embeds=embeds).logits, scaled(ids).logits)
    options: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(scaled.generate(ids, **options), plain.generate(ids, **options))
    with pytest.raises(InputError, match="embedding_scale is 0"):
        tiny_config(embedding_scale=0.0)
