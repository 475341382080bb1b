"""Nanbeige's form: written, read back, and refused where it cannot hold a model."""

import json

import pytest
import torch
from torch import nn

from loopscale import InputError, LoopedConfig
from loopscale.convert import convert_checkpoint, from_nanbeige, load_nanbeige, to_nanbeige
from loopscale.model.parts import SLOTS
from tests.helpers import tiny_model

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
    model = rope_model(**{slot: {"kind": kind}})
    if kind in ("none", "pre", "residual") or (slot, kind) == ("readout", "rmsnorm"):
        weights, config = to_nanbeige(model)
        assert torch.equal(from_nanbeige(weights, config)(IDS).logits, model(IDS).logits)
    else:
        with pytest.raises(InputError, match=f"no {slot}='{kind}'"):
            to_nanbeige(model)


def test_a_field_of_ours_that_nobody_has_placed_counts_at_its_default(monkeypatch):
    monkeypatch.setitem(LoopedConfig.__annotations__, "tau", float)
    monkeypatch.setattr(LoopedConfig, "tau", 1.0, raising=False)
    model = rope_model()
    to_nanbeige(model)
    model.config.tau = 2.0
    with pytest.raises(InputError, match=r"no tau=2\.0"):
        to_nanbeige(model)


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
    with pytest.raises(InputError, match=r"1 weights that a looped Llama lacks, among them model\.ngram"):
        from_nanbeige({**weights, "model.ngram": torch.zeros(1)}, config)
    assert from_nanbeige({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, config)
