"""Weights as training scripts leave them: prefixes, nests, other files, and what is no checkpoint at all."""

import argparse
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscale import InputError
from loopscale.convert import convert_checkpoint, from_ouro
from loopscale.load import load_model
from tests.helpers import tiny_model


@pytest.fixture
def native(tmp_path):
    """A folder of ours, its model, and its weights under their own names."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "native")
    return tmp_path / "native", model, load_file(tmp_path / "native" / "model.safetensors")


def same(model, other):
    return all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module.", "net.student."]
)
def test_a_prefix_is_left_out_and_said(native, prefix, caplog):
    folder, model, weights = native
    save_file({f"{prefix}{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        assert same(model, load_model(str(folder)))
    assert prefix.split(".")[0] in caplog.text


def test_a_prefix_between_the_parts_of_a_name_is_left_out(native, tmp_path):
    folder, model, weights = native
    inner = {
        name.replace("model.layers.0.", "model.layers.0._checkpoint_wrapped_module."): t for name, t in weights.items()
    }
    save_file(inner, folder / "model.safetensors")
    assert same(model, load_model(str(folder)))
    assert same(model, load_model(str(convert_checkpoint(str(folder), tmp_path / "again"))))


def test_an_ouro_of_a_compiled_model_in_parallel(ouro):
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in ouro.weights.items()}
    torch.testing.assert_close(
        from_ouro(wrapped, ouro.config)(ouro("input_ids")).logits, ouro("logits")[-1], atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("nest", [None, "model", "state_dict", "model_state_dict", "module"])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "last.ckpt", "step-10.pt"])
def test_torchs_own_file_with_or_without_the_rest_of_a_training(native, nest, file, caplog):
    folder, model, weights = native
    (folder / "model.safetensors").unlink()
    content = weights if nest is None else {"step": torch.tensor(3), "optimizer": {"state": {}}, nest: weights}
    torch.save(content, folder / file)
    with caplog.at_level(logging.WARNING):
        assert same(model, load_model(str(folder)))
        assert same(model, load_model(str(folder / file)))
    assert nest is None or "optimizer" in caplog.text


def test_a_file_of_torchs_former_format(native):
    folder, model, weights = native
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    assert same(model, load_model(str(folder)))


def test_one_safetensors_file_of_another_name(native, tmp_path):
    folder, model, _ = native
    (folder / "model.safetensors").rename(folder / "weights-final.safetensors")
    assert same(model, load_model(str(folder)))
    assert same(model, load_model(str(folder / "weights-final.safetensors")))
    assert same(model, load_model(str(convert_checkpoint(str(folder / "weights-final.safetensors"), tmp_path / "new"))))


def test_shards_of_torchs_own_files(native):
    folder, model, weights = native
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: weights[name] for name in names if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    assert same(model, load_model(str(folder)))


def test_an_unsafe_pickle_is_named_and_not_run(native):
    folder, _, weights = native
    (folder / "model.safetensors").unlink()
    torch.save({"model": weights, "args": argparse.Namespace(lr=1)}, folder / "last.pt")
    with pytest.raises(InputError, match=r"an object of argparse\.Namespace"):
        load_model(str(folder))


def lora(weights):
    return {**weights, "model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(2, 16)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, **{f"ema.{name}": tensor for name, tensor in w.items()}}, "holds 2 models"),
        (lambda w: {**w, **{f"module.{name}": tensor for name, tensor in w.items()}}, "two weights are called"),
        (lora, "low-rank adapters"),
        (lambda w: {**w, "model.layers.7.mlp.up_proj.weight": torch.zeros(2, 2)}, "layers.7.mlp.up_proj.weight"),
        (lambda w: {n: t.to(torch.int8) for n, t in w.items()}, "int8, as in a quantised model"),
        (lambda w: {n: t.to(torch.float8_e4m3fn) for n, t in w.items()}, "float8_e4m3fn"),
        (lambda w: {n: t[:1] if "up_proj" in n else t for n, t in w.items()}, "up_proj.weight has shape"),
        (lambda w: {n: t for n, t in w.items() if "readout" not in n}, "readout"),
    ],
)
def test_weights_that_are_not_this_models_are_named(native, change, words):
    folder, _, weights = native
    changed = {name: tensor.clone() for name, tensor in change(weights).items()}
    (folder / "model.safetensors").unlink()
    torch.save(changed, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=words):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "cannot be|broken|not a whole"),
    ],
)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "other.safetensors"])
def test_a_file_that_is_no_weights_is_told(native, file, content, words):
    folder, _, _ = native
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_model(str(folder))


def test_a_truncated_file_is_told(native):
    folder, _, _ = native
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="native"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "it is empty"),
        (["adapter_config.json", "adapter_model.safetensors"], "adapters of another model"),
        (["model-Q4.gguf"], r"llama\.cpp's format"),
        ([".metadata", "__0_0.distcp"], "distributed checkpoint"),
        (["zero_to_fp32.py"], "DeepSpeed"),
        (["checkpoint-3/config.json"], "but '.*checkpoint-3' is"),
        (["notes.txt"], "not a model's folder"),
    ],
)
def test_a_folder_that_is_no_models_says_what_it_is(tmp_path, files, words):
    (tmp_path / "there").mkdir()
    for name in files:
        (tmp_path / "there" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "there" / name).write_text("{}")
    with pytest.raises(InputError, match=words):
        load_model(str(tmp_path / "there"))


def test_files_without_their_config_or_model_are_told(native, tmp_path):
    folder, _, weights = native
    torch.save(weights, tmp_path / "alone.pt")
    for name, words in (
        (tmp_path / "alone.pt", r"no config\.json beside"),
        (tmp_path / "none.safetensors", "no file of weights at"),
        (tmp_path / "none.pt", "no checkpoint at"),
    ):
        with pytest.raises(InputError, match=words):
            load_model(str(name))
    save_file(weights, folder / "b.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    with pytest.raises(InputError, match="holds 2 files of weights"):
        load_model(str(folder))


def test_weights_of_two_precisions_keep_the_wider():
    model = tiny_model().to(torch.bfloat16)
    model.readout_norm.float()
    from loopscale.convert.build import build_model

    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert build_model(model.config, state, "it").dtype == torch.float32


def test_names_without_values_are_told(native):
    folder, _, weights = native
    (folder / "model.safetensors").unlink()
    torch.save({name: tensor.to("meta") for name, tensor in weights.items()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="without values"):
        load_model(str(folder))


def test_a_file_of_another_kind_is_told(tmp_path):
    for name, words in (("a.gguf", r"llama\.cpp's format"), ("a.txt", "no file of weights")):
        (tmp_path / name).write_text("text")
        with pytest.raises(InputError, match=words):
            load_model(str(tmp_path / name))
