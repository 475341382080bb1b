"""What stands in an exported file, read back with the gguf package, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from loopscale import InputError
from loopscale.export import DTYPES, to_gguf
from loopscale.model import LoopedForCausalLM
from tests.export.byte_level import bpe, byte_tokenizer
from tests.helpers import tiny_config

gguf = pytest.importorskip("gguf", reason="GGUF files need the gguf package: pip install 'loopscale[gguf]'")


def model_of(**fields):
    return LoopedForCausalLM(tiny_config(**{"vocab_size": 256, "position_embedding": "rope", **fields})).eval()


def read(path):
    """Return the file's values and tensors by name."""
    reader = gguf.GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items()}, {t.name: t for t in reader.tensors}


def test_sizes_and_loops(tmp_path):
    model = model_of(
        num_key_value_heads=1, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 5e4}
    )
    values, tensors = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf"))
    sizes = {
        "block_count": 2,
        "context_length": 48,
        "embedding_length": 16,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "rope.dimension_count": 8,
        "rope.freq_base": 5e4,
        "vocab_size": 256,
        "num_loops": 3,
        "skip_loop_final_norm": True,
    }
    assert {key: values[f"nanbeige.{key}"] for key in sizes} == sizes
    assert values["nanbeige.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert "output.weight" not in tensors  # tied
    assert len(tensors) == 2 + 2 * 9


def test_a_shared_norm_between_loops_and_a_head_of_its_own(tmp_path):
    model = model_of(recurrence="rmsnorm", share_loop_norm=True, tie_word_embeddings=False)
    values, tensors = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf"))
    assert not values["nanbeige.skip_loop_final_norm"]
    np.testing.assert_array_equal(tensors["output.weight"].data, model.lm_head.weight.detach())


def test_rows_that_rotate_together_are_neighbours(tmp_path):
    model = model_of()
    _, tensors = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf"))
    attention = model.model.layers[1].self_attn
    for name, projection in (("attn_q", attention.q_proj), ("attn_k", attention.k_proj)):
        theirs, ours = tensors[f"blk.1.{name}.weight"].data, projection.weight.detach().numpy()
        for head in (0, 8):
            for pair in range(4):
                np.testing.assert_array_equal(theirs[head + 2 * pair], ours[head + pair])
                np.testing.assert_array_equal(theirs[head + 2 * pair + 1], ours[head + pair + 4])
    np.testing.assert_array_equal(tensors["blk.1.attn_v.weight"].data, attention.v_proj.weight.detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_have_the_type_asked_for_and_norms_float32(dtype, tmp_path):
    model = model_of(hidden_size=32)
    values, tensors = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", dtype))
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == tensors["output_norm.weight"].tensor_type.name == "F32"
    kinds = {tensor.tensor_type.name for name, tensor in tensors.items() if "norm" not in name}
    assert kinds == {dtype.upper()}
    assert gguf.LlamaFileType(values["general.file_type"]).name == DTYPES[dtype][1]


def test_matrices_too_narrow_for_blocks_stay_in_f16(tmp_path, caplog):
    _, tensors = read(to_gguf(model_of(), byte_tokenizer(), tmp_path / "model.gguf", "q8_0"))
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == "F16"
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "Q8_0"
    assert "rows that are no multiple of 32" in caplog.text


def test_a_bfloat16_model(tmp_path):
    model = model_of().bfloat16()
    _, tensors = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf"))
    np.testing.assert_array_equal(tensors["token_embd.weight"].data, model.model.embed_tokens.weight.detach().float())


def test_the_vocabulary_of_bytes(tmp_path):
    values, _ = read(to_gguf(model_of(vocab_size=258), byte_tokenizer(), tmp_path / "model.gguf"))
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert (tokens[97], tokens[32], len(tokens)) == ("a", "Ġ", 258)
    assert kinds == [1] * 256 + [5] * 2
    assert values["tokenizer.ggml.eos_token_id"] == byte_tokenizer().eos_token_id
    assert not values["tokenizer.ggml.add_bos_token"]


def test_special_tokens_and_a_chat_template(tmp_path):
    tokenizer = bpe("gpt-2", "one two", bos_token="<|begin|>")
    tokenizer.add_tokens(["<plain>"])
    tokenizer.chat_template = "{{ messages }}"
    model = model_of(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 7]
    values, _ = read(to_gguf(model, tokenizer, tmp_path / "model.gguf"))
    kinds = values["tokenizer.ggml.token_type"]
    assert (kinds[tokenizer.eos_token_id], kinds[tokenizer.convert_tokens_to_ids("<plain>")], kinds[50]) == (3, 4, 1)
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert values["tokenizer.ggml.eot_token_id"] == 7
    assert values["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert values["tokenizer.chat_template"] == "{{ messages }}"


def test_another_depth_only_if_it_is_asked_for(tmp_path):
    model = model_of()
    model.config.num_loops = 2
    with pytest.raises(InputError, match="second depth: num_loops is 2, trained_loops 3"):
        to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf")
    values, _ = read(to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", num_loops=2))
    assert values["nanbeige.num_loops"] == 2


def test_what_cannot_be_written_is_told_in_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    there = tmp_path / "there.gguf"
    there.write_text("mine")
    for problem, fields, path, options in (
        ("which has no readout='raw'", {"readout": "raw"}, tmp_path / "a.gguf", {}),
        ("unknown type of weights 'q4'", {}, tmp_path / "a.gguf", {"dtype": "q4"}),
        ("exists", {}, there, {}),
        ("there.gguf is a file, choose another folder", {}, there / "a.gguf", {}),
        ("give a whole number of loops", {}, tmp_path / "a.gguf", {"num_loops": 0}),
        ("runs 512 layers at most, and this model's loops make 600", {}, tmp_path / "a.gguf", {"num_loops": 300}),
    ):
        with pytest.raises(InputError, match=problem):
            to_gguf(model_of(**fields), byte_tokenizer(), path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["there.gguf"]
    assert there.read_text() == "mine"
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'loopscale\[gguf\]'"):
        to_gguf(model_of(), byte_tokenizer(), tmp_path / "a.gguf")


def test_the_models_mode_is_left_as_it_was(tmp_path):
    model = model_of(dropout=0.5).train()
    to_gguf(model, byte_tokenizer(), tmp_path / "model.gguf")
    assert model.training
    assert torch.isfinite(model.lm_head.weight).all()
