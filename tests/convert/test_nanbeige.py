"""Nanbeige's form: written, read back, and refused where it cannot hold a model."""

import dataclasses
import json
import typing

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from loopscale import InputError, LoopedConfig, run_loops
from loopscale.convert import convert_checkpoint, from_nanbeige, load_nanbeige, to_nanbeige
from loopscale.model.parts import SLOTS
from loopscale.retrofit import retrofit
from tests.helpers import tiny_model
from tests.retrofit.originals import LAYERS, original, prompts

IDS = torch.arange(24).view(2, 12)


def rope_model(**fields):
    return tiny_model(**{"position_embedding": "rope", **fields})


@pytest.mark.parametrize(
    ("fields", "skips"),
    [
        ({}, True),
        ({"recurrence": "rmsnorm", "share_loop_norm": True}, False),
        ({"tie_word_embeddings": False, "num_key_value_heads": 1}, True),
        ({"num_loops": 1, "recurrence": "damped"}, True),  # nothing is carried
        ({"num_loops": 1, "readout": "final_rmsnorm"}, True),
        ({"exit_gate": True}, True),
        ({"head_dim": 10}, True),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "rms_norm_eps": 1e-3}, True),
    ],
)
def test_there_and_back_computes_the_same(fields, skips):
    model = rope_model(**fields)
    weights, config = to_nanbeige(model)
    assert (config["skip_loop_final_norm"], config["num_loops"]) == (skips, model.num_loops)
    assert torch.equal(from_nanbeige(weights, config)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"position_embedding": "learned"}, "no position_embedding='learned'"),
        ({"norm_placement": "sandwich", "readout": "raw"}, "no readout='raw', no residual='sandwich'"),
        ({"block_norm": "layernorm"}, "no block_norm='layernorm'"),
        ({"attention_bias": True}, "no attention_bias=True"),
        ({"attention_output_bias": True}, "no attention_output_bias=True"),
        ({"qk_norm": True}, "no qk_norm=True"),
        ({"mlp": "gelu"}, "no mlp='gelu'"),
        ({"mlp_bias": True}, "no mlp_bias=True"),
        ({"readout": "layernorm"}, "no readout='layernorm'"),
        ({"readout": "final_rmsnorm"}, "no readout='final_rmsnorm'"),
        ({"readout": "raw", "num_loops": 1}, "no readout='raw'"),
        ({"recurrence": "damped"}, "no recurrence='damped'"),
        ({"recurrence": "rmsnorm"}, "no inter-loop norm of its own"),
        ({"exit_gate": True, "exit_threshold": 0.9}, r"no exit gate to stop by \(exit_threshold=0.9\)"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "no rope_parameters=.*linear"),
        ({"num_loops": 2, "trained_loops": 3}, "no second depth: num_loops is 2, trained_loops 3"),
    ],
)
def test_what_it_lacks_is_named(fields, named):
    with pytest.raises(InputError, match=named):
        to_nanbeige(rope_model(**fields))


PARTS = [(slot, kind) for slot, registry in SLOTS.items() for kind in registry]


@pytest.mark.parametrize(("slot", "kind"), PARTS)
def test_every_part_of_ours_is_expressed_or_named(slot, kind):
    coda = {"num_coda_layers": 1} if slot == "coda_input" and kind != "state" else {}
    model = rope_model(**{slot: {"kind": kind}}, **coda)
    if kind in ("none", "pre", "residual", "state", "full") or (slot, kind) == ("readout", "rmsnorm"):
        weights, config = to_nanbeige(model)
        assert torch.equal(from_nanbeige(weights, config)(IDS).logits, model(IDS).logits)
    else:
        with pytest.raises(InputError, match=f"no {slot}='{kind}'"):
            to_nanbeige(model)


# what a field needs beside it, to have its other value at all
BESIDE = {
    "qk_norm_whole": {"qk_norm": True},
    "qk_norm_eps": {"qk_norm": True},
    "attention_output_bias": {"attention_bias": True},
    "exit_threshold": {"exit_gate": True},
    "initial_state": {"injection": "add"},
    "prelude_norm": {"num_prelude_layers": 1, "injection": "add"},
    "share_loop_norm": {"recurrence": "rmsnorm"},
}


def others(field):
    """Return other values than the default of a field of the configuration that is a switch, a choice or a number."""
    if field.type is bool:
        return [not field.default]
    if field.type is float or field.type == float | None:
        return [(field.default or 0) / 2 + 1e-3]
    if typing.get_origin(field.type) is typing.Literal:
        return [value for value in typing.get_args(field.type) if value != field.default]
    return []


FIELDS = [(f.name, value) for f in dataclasses.fields(LoopedConfig) for value in others(f)]


@pytest.mark.parametrize(("name", "value"), FIELDS)
def test_every_field_is_written_or_named(name, value, unchecked_shapes):
    """Whoever adds a field need not think of other forms: they carry it, or it is named."""
    model = rope_model(**BESIDE.get(name, {}) | {name: value})
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)  # biases and norms too
    try:
        weights, config = to_nanbeige(model)
    except InputError as error:
        assert f"no {name.replace('norm_placement', 'residual')}=" in str(error) or f"({name}=" in str(error)
    else:
        torch.testing.assert_close(from_nanbeige(weights, config)(IDS).logits, model(IDS).logits)


def test_a_field_of_ours_that_nobody_has_placed_counts_at_its_default(monkeypatch):
    monkeypatch.setitem(LoopedConfig.__annotations__, "tau", float)
    monkeypatch.setattr(LoopedConfig, "tau", 1.0, raising=False)
    model = rope_model()
    to_nanbeige(model)
    model.config.tau = 2.0
    with pytest.raises(InputError, match=r"no tau=2\.0"):
        to_nanbeige(model)


def test_a_retrofit_is_written_where_all_its_layers_are_looped():
    llama, ids = original(), prompts(2)
    weights, config = to_nanbeige(retrofit(llama, (0, LAYERS), num_loops=2), num_loops=1)
    torch.testing.assert_close(from_nanbeige(weights, config)(ids).logits, llama(ids).logits)
    with pytest.raises(InputError, match="no num_prelude_layers=1, no num_coda_layers=1"):
        to_nanbeige(retrofit(llama, (1, LAYERS - 1)))


def test_a_weight_without_a_place_is_refused():
    model = rope_model()
    model.extra = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"no place for 2 of its weights, among them extra\.bias"):
        to_nanbeige(model)


def test_a_part_that_nobody_thought_of_is_found_by_running_it():
    model = rope_model()
    model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(InputError, match="computes something that a Nanbeige does not: on 16 tokens"):
        to_nanbeige(model)


def test_a_depth_that_is_asked_for_is_written():
    model = rope_model()
    weights, config = to_nanbeige(model, num_loops=2)
    assert torch.equal(from_nanbeige(weights, config)(IDS).logits, model(IDS, num_loops=2).logits)


def test_a_gate_left_out_is_told(caplog):
    to_nanbeige(rope_model(exit_gate=True))
    assert "the exit gate is left out: every token will take all 3 loops" in caplog.text


def test_a_folder_goes_there_and_back(tmp_path):
    model = rope_model(eos_token_id=7)
    model.save_pretrained(tmp_path / "ours")
    theirs = convert_checkpoint(str(tmp_path / "ours"), tmp_path / "theirs", to="nanbeige")
    config = json.loads((theirs / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("nanbeige", ["NanbeigeForCausalLM"])
    assert (config["num_hidden_layers"], config["num_loops"], config["eos_token_id"]) == (2, 3, 7)
    assert (theirs / "model.safetensors").is_file()
    loaded = load_nanbeige(theirs)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert loaded.generation_config.eos_token_id == 7


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"enable_mhc": True}, "enable_mhc=True"),
        ({"loop_loss_weights": [0.5]}, "loop_loss_weights"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_theta": None}, "rope_theta is None"),
        ({"num_loops": None}, "num_loops is missing"),
    ],
)
def test_options_that_do_not_run_here_are_named(changes, named):
    weights, config = to_nanbeige(rope_model())
    with pytest.raises(InputError, match=named):
        from_nanbeige(weights, {**config, **changes})


def test_weights_missing_and_surplus():
    weights, config = to_nanbeige(rope_model())
    with pytest.raises(InputError, match=r"1 weights are missing, among them model\.norm\.weight"):
        from_nanbeige({name: w for name, w in weights.items() if name != "model.norm.weight"}, config)
    with pytest.raises(InputError, match=r"1 unknown weights, among them model\.ngram"):
        from_nanbeige({**weights, "model.ngram": torch.zeros(1)}, config)
    assert from_nanbeige({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, config)


def test_a_base_is_read_as_transformers_5_writes_it():
    weights, config = to_nanbeige(rope_model(rope_parameters={"rope_type": "default", "rope_theta": 77.0}))
    rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    again = from_nanbeige(weights, {**config, "rope_parameters": rope})
    assert again.config.rope_parameters["rope_theta"] == 77
    with pytest.raises(InputError, match=r"this Nanbeige has rope_parameters=.*yarn"):
        from_nanbeige(weights, {**config, "rope_parameters": {**rope, "rope_type": "yarn"}})


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("num_loops", [1, 2, 3])
@pytest.mark.parametrize("head_dim", [8, 10])
def test_it_is_transformers_llama_applied_again_and_again(skips, num_loops, head_dim):
    sizes = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": head_dim}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 48, "rope_theta": 70.0}
    llama = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False)).eval()
    config = {**sizes, "num_loops": num_loops, "skip_loop_final_norm": skips, "tie_word_embeddings": False}
    native = from_nanbeige(llama.state_dict(), config)
    again, written = to_nanbeige(native)
    assert all(torch.equal(weight, llama.state_dict()[name]) for name, weight in again.items())
    assert {name: written[name] for name in ("num_loops", "head_dim", "rope_theta")} == {
        name: config[name] for name in ("num_loops", "head_dim", "rope_theta")
    }
    context = native.context(IDS)
    with torch.no_grad():
        h, angles = llama.model.embed_tokens(IDS), llama.model.rotary_emb(native.embed(IDS), torch.arange(12)[None])
        for k, z in enumerate(run_loops(native, IDS)):
            for layer in llama.model.layers:
                h = layer(h, position_embeddings=angles)
            expected = llama.lm_head(llama.model.norm(h))
            torch.testing.assert_close(native.readout(z, k, context), expected)
            h = h if skips else llama.model.norm(h)
