import json
import math
import shutil
import time
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from loopscale import InputError, LoopedForCausalLM
from loopscale.convert import convert_checkpoint, read_as_native
from loopscale.data import words_tokenizer
from loopscale.load import load_model, load_tokenizer_of
from tests.helpers import tiny_model

WORDS = ["<unk>", "a", "b", " "]


@pytest.fixture
def ouro_folder(ouro, tmp_path):
    """An Ouro as the hub has it: config with remote code, two shards with an index, a tokenizer."""
    folder = tmp_path / "ouro"
    folder.mkdir()
    names = sorted(ouro.weights)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, keys in shards.items():
        save_file({name: ouro.weights[name] for name in keys}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, keys in shards.items() for name in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    remote = {"AutoConfig": "configuration_ouro.OuroConfig", "AutoModelForCausalLM": "modeling_ouro.OuroForCausalLM"}
    (folder / "config.json").write_text(json.dumps({**ouro.config, "model_type": "ouro", "auto_map": remote}))
    GenerationConfig(eos_token_id=[2, 5]).save_pretrained(folder)
    words_tokenizer(WORDS).save_pretrained(folder)
    (folder / "modeling_ouro.py").write_text("raise AssertionError('code of a checkpoint was run')\n")
    (folder / "configuration_ouro.py").write_text("raise AssertionError('code of a checkpoint was run')\n")
    return folder


def test_an_ouro_folder_loads_as_it_is_without_its_code(ouro, ouro_folder):
    model = load_model(str(ouro_folder))
    assert isinstance(model, LoopedForCausalLM) and not model.training
    torch.testing.assert_close(model(ouro("input_ids")).logits, ouro("logits")[-1], atol=2e-4, rtol=0)
    assert model.generation_config.eos_token_id == [2, 5]
    assert load_tokenizer_of(str(ouro_folder))("ab a")["input_ids"] == [0, 3, 1]


@pytest.mark.parametrize(
    "odd", [{"attn_implementation": "rmsnorm"}, {"base_model_tp_plan": "0"}, {"transformers_weights": 1}, {"dtype": 7}]
)
def test_values_that_show_when_the_model_is_made_are_told(odd, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    with pytest.raises(InputError, match=f"^the model in '{tmp_path}'"):
        load_model(str(tmp_path))


def test_a_tokenizer_whose_ids_have_gaps_is_measured_by_the_largest(ouro_folder, tmp_path):
    file = ouro_folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["far"] = 500
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="ids up to 500"):
        convert_checkpoint(str(ouro_folder), tmp_path / "native")


@pytest.mark.parametrize(
    "odd",
    [
        {"num_hidden_layers": 10**400},
        {"num_hidden_layers": 10**9},
        {"intermediate_size": 10**400},
        {"rope_theta": 10**400},
        {"hidden_size": {"kind": "power"}},
        {"total_ut_steps": 10**9},
    ],
)
def test_odd_sizes_of_another_kind_are_told_soon(odd, ouro_folder):
    path, began = ouro_folder / "config.json", time.process_time()
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    with pytest.raises(InputError):
        load_model(str(ouro_folder))
    assert time.process_time() - began < 2


def test_a_tokenizer_with_a_part_of_another_form_is_told(ouro_folder):
    file = ouro_folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": {"kind": "power"}}))
    with pytest.raises(InputError, match=r"tokenizer beside the model at .* cannot be read"):
        load_tokenizer_of(str(ouro_folder))


def test_a_tokenizer_that_cannot_be_read_is_told(ouro_folder, tmp_path, caplog):
    (ouro_folder / "tokenizer.json").write_text("{")
    convert_checkpoint(str(ouro_folder), tmp_path / "native")
    assert "written without a tokenizer" in caplog.text


def test_weights_that_are_not_finite_are_told(tmp_path, caplog):
    model = tiny_model()
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    model.save_pretrained(tmp_path / "broken")
    convert_checkpoint(str(tmp_path / "broken"), tmp_path / "native")
    assert "not finite (" in caplog.text


def test_another_depth_leaves_the_trained_one(ouro, ouro_folder):
    model: Any = load_model(str(ouro_folder), num_loops=2)
    assert (model.num_loops, model.config.trained_loops) == (2, 3)
    torch.testing.assert_close(model(ouro("input_ids")).logits, ouro("logits")[1], atol=2e-4, rtol=0)


def test_ouro_to_native_and_back(ouro, ouro_folder, tmp_path):
    native = convert_checkpoint(str(ouro_folder), tmp_path / "native")
    model = AutoModelForCausalLM.from_pretrained(native).eval()
    torch.testing.assert_close(model(ouro("input_ids")).logits, ouro("logits")[-1], atol=2e-4, rtol=0)
    assert model.generation_config.eos_token_id == [2, 5]
    assert load_tokenizer_of(str(native)).get_vocab() == load_tokenizer_of(str(ouro_folder)).get_vocab()
    back = convert_checkpoint(str(native), tmp_path / "back", to="ouro")
    assert json.loads((back / "config.json").read_text())["total_ut_steps"] == 3
    again = read_as_native(str(back)).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_an_existing_destination_is_kept_unless_told(ouro_folder, tmp_path):
    destination = tmp_path / "there"
    destination.mkdir()
    (destination / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        convert_checkpoint(str(ouro_folder), destination)
    assert (destination / "mine.txt").read_text() == "mine"
    convert_checkpoint(str(ouro_folder), destination, overwrite=True)
    assert not (destination / "mine.txt").exists()
    again: Any = load_model(str(destination))
    assert again.config.supervision == "exit_gate"
    with pytest.raises(InputError, match="source and destination"):
        convert_checkpoint(str(destination), destination, overwrite=True)


def test_a_failed_conversion_leaves_nothing(tmp_path):
    source = tmp_path / "plain"
    tiny_model().save_pretrained(source)
    with pytest.raises(InputError, match="cannot be written as an Ouro"):
        convert_checkpoint(str(source), tmp_path / "out" / "ouro", to="ouro")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(InputError, match="did you mean 'ouro'"):
        convert_checkpoint(str(source), tmp_path / "out" / "ouro", to="uoro")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
            "00002-of-00002.safetensors is missing",
        ),
        (lambda folder: (folder / "model-00001-of-00002.safetensors").write_bytes(b"short"), "is broken"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "model of type 'llama'"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
            "index of a sharded checkpoint",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}'),
            r"\.\./x is missing",
        ),
        (shutil.rmtree, "no model at"),
    ],
)
def test_a_spoilt_folder_is_told_in_words(ouro_folder, tmp_path, spoil, words):
    spoil(ouro_folder)
    with pytest.raises(InputError, match=words):
        load_model(str(ouro_folder))
    with pytest.raises(InputError):
        convert_checkpoint(str(ouro_folder), tmp_path / "out")


def test_a_native_folder_with_a_weight_missing_is_not_filled_up(tmp_path):
    model = tiny_model()
    weights = {k: v for k, v in model.state_dict().items() if k not in {"readout_norm.norm.weight", "lm_head.weight"}}
    model.config.save_pretrained(tmp_path)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"readout_norm\.norm\.weight is missing"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["nobody/no-such-looped-model", "not a/valid/id"])
def test_a_hub_id_out_of_reach_is_one_sentence(name):
    with pytest.raises(InputError, match="hub id that can be reached"):
        load_model(name)
    with pytest.raises(InputError, match="hub id that can be reached"):
        load_tokenizer_of(name)
