from typing import Any

import pytest
import torch

from loopscale import InputError, LoopedForCausalLM
from loopscale.convert import convert_checkpoint, from_readout_blind_spot
from loopscale.data.tokenization import WORDS_PATTERN
from loopscale.load import load_model, load_tokenizer_of

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", " ", "loop", "the", ".", "\n"]


def checkpoint(golden, variant, **changes):
    """The content of a .pt file as the released training code writes it."""
    size = {key: golden.meta[key] for key in ("d_model", "num_heads", "num_layers", "ff_multiplier", "num_loops")}
    return {
        "model_state": {name: torch.from_numpy(value) for name, value in golden.weights.items()},
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 3e-4}]},
        "config": {
            "data": {"seq_len": golden.meta["max_seq_len"]},
            "model": {"inter_loop_norm": False, **size, **golden.meta["variants"][variant], **changes},
            "supervision": {"mode": "per-step", "norm_penalty_weight": 0.01},
        },
        "tokenizer": {"kind": "regex", "itos": WORDS, "pattern": WORDS_PATTERN.pattern},
        "global_step": 7,
    }


@pytest.mark.parametrize("variant", ["rmsnorm", "raw", "final_rmsnorm", "inter_loop_norm", "damped"])
def test_a_pt_file_is_the_model_of_its_weights(golden, tmp_path, variant):
    torch.save(checkpoint(golden, variant), tmp_path / "last.pt")
    model = load_model(str(tmp_path / "last.pt"))
    assert isinstance(model, LoopedForCausalLM)
    torch.testing.assert_close(model(golden.input_ids).logits, golden(variant, "logits")[-1], atol=2e-4, rtol=0)
    assert (model.config.supervision, model.config.norm_penalty_coef) == ("per_loop", 0.01)


def test_a_flat_config_does_as_well(golden, tmp_path):
    content = checkpoint(golden, "raw")
    content["config"] = {**golden.meta, **golden.meta["variants"]["raw"]}
    torch.save(content, tmp_path / "last.pt")
    model = load_model(str(tmp_path / "last.pt"), num_loops=2)
    torch.testing.assert_close(model(golden.input_ids).logits, golden("raw", "logits")[1], atol=2e-4, rtol=0)


def test_missing_flags_have_that_codes_defaults(golden, tmp_path):
    content = checkpoint(golden, "rmsnorm")
    del content["config"]["model"]["inter_loop_norm"]
    content["config"]["supervision"] = {"mode": "terminal"}
    torch.save(content, tmp_path / "last.pt")
    model: Any = load_model(str(tmp_path / "last.pt"))
    config = model.config
    assert (config.recurrence, config.readout, config.supervision) == ("rmsnorm", "rmsnorm", "terminal")


def test_the_gate_comes_along_where_it_was_trained(golden, tmp_path):
    content = checkpoint(golden, "rmsnorm")
    content["config"]["supervision"] = {"mode": "adaptive"}
    torch.save(content, tmp_path / "last.pt")
    model: Any = load_model(str(tmp_path / "last.pt"))
    assert (model.config.supervision, model.config.entropy_coef) == ("exit_gate", 0.1)
    assert torch.equal(model.exit_gate.weight, torch.from_numpy(golden.weights["exit_gate.weight"]))


def test_its_tokenizer_reads_text_as_that_code_did(golden, tmp_path):
    torch.save(checkpoint(golden, "rmsnorm"), tmp_path / "last.pt")
    tokenizer = load_tokenizer_of(str(tmp_path / "last.pt"))
    text = "the loop <eos> naïve.\n"
    expected = [WORDS.index(word) if word in WORDS else 3 for word in WORDS_PATTERN.findall(text)]
    assert tokenizer(text)["input_ids"] == expected
    assert tokenizer.decode([6, 4, 5, 7]) == "the loop."
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id) == (0, 3, None)
    folder = convert_checkpoint(str(tmp_path / "last.pt"), tmp_path / "native")
    assert load_tokenizer_of(str(folder))(text)["input_ids"] == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"decode_norm_type": "tapernorm"}, "decode_norm_type 'tapernorm'"),
        ({"inter_loop_norm": True, "use_spectral_damping": True}, "both inter_loop_norm and use_spectral_damping"),
        ({"use_decode_nrom": True}, "did you mean 'use_decode_norm'"),
        ({"supervision": "sometimes"}, "flag .* 'supervision'"),
    ],
)
def test_flags_without_a_counterpart_are_told(golden, tmp_path, flags, words):
    torch.save(checkpoint(golden, "rmsnorm", **flags), tmp_path / "last.pt")
    with pytest.raises(InputError, match=words):
        load_model(str(tmp_path / "last.pt"))


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": [1]},
        {"config": {"model": None}},
        {"config": {"model": "big"}},
        {"model_state": None},
        {"model_state": [1]},
        {"model_state": {"token_embedding.weight": "x"}},
        {"model_state": {"token_embedding.weight": torch.tensor(1.0)}},
    ],
)
def test_a_checkpoint_of_odd_things_is_told(golden, tmp_path, change):
    torch.save({**checkpoint(golden, "rmsnorm"), **change}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="readout-blind-spot"):
        load_model(str(tmp_path / "last.pt"))


@pytest.mark.parametrize("tokenizer", ["words", ["a"], {"kind": "regex", "itos": [["a"]]}])
def test_a_tokenizer_of_odd_things_is_told(golden, tmp_path, tokenizer):
    torch.save({**checkpoint(golden, "rmsnorm"), "tokenizer": tokenizer}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="tokenizer in"):
        load_tokenizer_of(str(tmp_path / "last.pt"))


def test_weights_that_have_no_place_are_told(golden, tmp_path):
    whole = checkpoint(golden, "rmsnorm")
    whole["model_state"]["weird.weight"] = torch.zeros(1)
    torch.save(whole, tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"among them weird\.weight"):
        load_model(str(tmp_path / "last.pt"))


def test_more_words_than_embeddings_are_told(golden, tmp_path):
    whole = checkpoint(golden, "rmsnorm")
    rows = len(whole["model_state"]["token_embedding.weight"])
    whole["tokenizer"]["itos"] = [*whole["tokenizer"]["itos"], *(f"word{i}" for i in range(rows))]
    torch.save(whole, tmp_path / "last.pt")
    with pytest.raises(InputError, match=f"and its model {rows}"):
        convert_checkpoint(str(tmp_path / "last.pt"), tmp_path / "native")
    assert not (tmp_path / "native").exists()


def test_other_losses_are_told(golden):
    for extra, words in (
        ({"supervision": "sometimes"}, "supervision mode 'sometimes'"),
        ({"scale_anchor_weight": 0.1}, "scale_anchor_weight"),
        ({"supervision": "adaptive", "use_spectral_damping": True}, "exit gate"),
    ):
        with pytest.raises(InputError, match=words):
            from_readout_blind_spot(golden.weights, {**golden.meta, **extra})


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_only_data_is_unpickled(golden, tmp_path, capsys):
    torch.save({**checkpoint(golden, "rmsnorm"), "extra": Payload()}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="cannot be loaded safely"):
        load_model(str(tmp_path / "last.pt"))
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_broken_file_is_told(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be loaded safely|is empty"):
        load_model(str(tmp_path / "last.pt"))


def test_what_is_not_such_a_checkpoint_is_told(golden, tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        load_model(str(tmp_path / "none.pt"))
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"no config\.json beside"):
        load_model(str(tmp_path / "other.pt"))
    for tokenizer, words in (
        (None, "no tokenizer in"),
        ({"kind": "char", "itos": WORDS}, "of kind 'char'"),
        ({"kind": "regex", "itos": ["a"], "pattern": WORDS_PATTERN.pattern}, "no list of words"),
    ):
        torch.save({**checkpoint(golden, "raw"), "tokenizer": tokenizer}, tmp_path / "last.pt")
        with pytest.raises(InputError, match=words):
            load_tokenizer_of(str(tmp_path / "last.pt"))


def test_names_of_a_compiled_model_are_read(golden):
    variant = next(iter(golden.meta["variants"]))
    meta = {**golden.meta, **golden.meta["variants"][variant]}
    wrapped = {f"_orig_mod.{name}": weight for name, weight in golden.weights.items()}
    logits = [from_readout_blind_spot(weights, meta)(golden.input_ids).logits for weights in (golden.weights, wrapped)]
    assert torch.equal(*logits)
