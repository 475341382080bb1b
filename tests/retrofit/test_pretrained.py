import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.data import Corpus, load_tokenizer
from loopscale.load import load_model
from loopscale.retrofit import retrofit, retrofit_folder
from tests.export.byte_level import bpe
from tests.retrofit.gguf_llama import write_gguf
from tests.retrofit.originals import LAYERS, SIZES, original, prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "model"
    original().save_pretrained(path)
    load_tokenizer("words", Corpus.of("text", ["a b c d"], ["a b"]), vocab_size=64).save_pretrained(path)
    return path


def test_a_folder_becomes_one_of_ours_with_tokenizer_and_record(folder, tmp_path, capsys):
    words = ["retrofit", str(folder), str(tmp_path / "out"), "--core", f"2:{LAYERS}", "--num_loops", "3"]
    assert main([*words, "--injection", "{kind: diagonal, rule: zoh}"]) == 0
    assert "2 layers, then 3 looped 3 times" in capsys.readouterr().out
    ids = prompts(2)
    model = load_model(str(tmp_path / "out"))
    expected = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
    assert torch.allclose(model(ids, num_loops=1).logits, expected, atol=1e-4)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "out")]
    assert tokenizers[0]("a b c")["input_ids"] == tokenizers[1]("a b c")["input_ids"]
    record = json.loads((tmp_path / "out" / "retrofit.json").read_text())
    assert (record["first"], record["last"], record["num_loops"]) == (2, LAYERS, 3)
    assert main(words) == 2  # it exists
    assert main([*words, "--overwrite"]) == 0


def test_bad_input_is_one_sentence(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    for words, told in (
        ([str(folder), out, "--core", "ten:20"], "give FIRST:END"),
        ([str(folder), out, "--core", "1:99"], "not a range of the model's"),
        ([str(folder), out, "--core", f"0:{LAYERS}", "--num_loops", "0"], "at least 1"),
        ([str(folder), out, "--core", f"0:{LAYERS}", "--injection", "liner"], "did you mean 'linear'"),
        ([str(tmp_path / "no"), out, "--core", "0:1"], "no model at"),
        ([str(tmp_path / "no.gguf"), out, "--core", "0:1"], "no GGUF file at"),
        ([str(folder), out], "give --core FIRST:END"),
    ):
        capsys.readouterr()
        assert main(["retrofit", *words]) == 2
        error = capsys.readouterr().err
        assert told in error, error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_lacks_a_weight_is_refused(folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "damaged")
    weights = load_file(there / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, there / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, among them model\.layers\.2"):
        retrofit(str(there), (1, LAYERS - 1))


def test_other_kinds_are_refused_before_their_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody_knows", "num_experts": 4}))
    with pytest.raises(InputError, match=r"'nobody_knows' has no looped form \(it has num_experts 4\)"):
        retrofit(str(tmp_path), (0, 1))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody_knows"}))
    with pytest.raises(InputError, match="'nobody_knows' has no looped form: retrofit reads llama"):
        retrofit(str(tmp_path), (0, 1))


def test_a_config_that_transformers_refuses_is_told_in_a_sentence(folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "uneven")
    config = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps({**config, "num_attention_heads": 3}))
    with pytest.raises(InputError, match=r"cannot be read: .*number of attention heads \(3\)"):
        retrofit(str(there), (1, LAYERS - 1))


def test_a_gguf_file_becomes_one_of_ours_with_its_tokenizer(tmp_path):
    pytest.importorskip("gguf", reason="no gguf package here: pip install 'loopscale[gguf]'")
    tokenizer = bpe("gpt-2", "The loop runs once and the state grows.")
    sizes = {**SIZES, "vocab_size": len(tokenizer), "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    write_gguf(model, tokenizer, tmp_path / "tiny.gguf")
    looped = retrofit_folder(str(tmp_path / "tiny.gguf"), tmp_path / "out", (0, LAYERS), num_loops=2)
    ids = prompts(2)
    assert torch.allclose(model(ids).logits, looped(ids, num_loops=1).logits, atol=1e-4)
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert saved("The state runs")["input_ids"] == tokenizer("The state runs")["input_ids"]
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="cannot be read"):
        retrofit(str(tmp_path / "broken.gguf"), (0, 1))
