import json
import sys
from typing import Any

import pytest
import torch

from loopscale import InputError, run_loops
from loopscale.adapters import Parcae
from loopscale.load import load_model
from loopscale.objective import Terminal
from tests.adapters import toy_parcae

TOKENS = torch.arange(18).view(2, 9)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What `parcae_lm.save_pretrained` writes, and a package that reads it."""
    monkeypatch.setitem(sys.modules, "parcae_lm", toy_parcae)
    model = toy_parcae.ParcaeConfig().construct_model()
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    return tmp_path


def test_a_folder_loads_behind_the_four_verbs(folder):
    adapter = load_model(str(folder), num_loops=2)
    assert isinstance(adapter, Parcae) and not adapter.training
    assert (adapter.num_loops, adapter.trained_loops, adapter.positions) == (2, 4, 24)
    assert adapter.supervision == Terminal()
    with torch.no_grad():
        first, last = run_loops(adapter, TOKENS)
        logits = adapter.readout(last, 1, adapter.context(TOKENS))
    assert first.shape == (2, 9, 16) and logits.shape == (2, 9, 29)
    assert logits.abs().max() < 5.0  # the soft cap


def test_results_repeat_and_do_not_depend_on_batch_or_length(folder):
    adapter = load_model(str(folder))
    with torch.no_grad():
        both = list(run_loops(adapter, TOKENS))[-1]
        before = torch.get_rng_state()
        alone = list(run_loops(adapter, TOKENS[1:, :5]))[-1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(both[1:, :5], alone)


def test_padded_rows_are_run_from_their_first_token(folder):
    adapter: Any = load_model(str(folder))
    mask = torch.ones_like(TOKENS)
    mask[0, :3] = mask[1, 7:] = 0
    context, bare = adapter.context(TOKENS, mask), adapter.context(TOKENS[:1, 3:])
    with torch.no_grad():
        h, alone = adapter.embed(TOKENS, context), adapter.embed(TOKENS[:1, 3:], bare)
        for k in range(2):
            h, alone = adapter.step(h, k, context), adapter.step(alone, k, bare)
        torch.testing.assert_close(h[:1, 3:], alone)
        torch.testing.assert_close(adapter.readout(h, 1, context)[:1, 3:], adapter.readout(alone, 1, bare))


def test_double_precision_has_its_own_first_state(folder):
    adapter: Any = load_model(str(folder))
    adapter.double()
    assert next(run_loops(adapter, TOKENS)).dtype == torch.float64


def test_value_embeddings_reach_core_and_coda(folder):
    adapter: Any = load_model(str(folder))
    with torch.no_grad():
        *_, z = run_loops(adapter, TOKENS)
        logits = adapter.readout(z, 3, adapter.context(TOKENS))
        adapter.model.value_embeds["1"].weight += 1  # the first block of the core
        *_, moved = run_loops(adapter, TOKENS)
        assert not torch.allclose(moved, z)
        adapter.model.value_embeds["3"].weight += 1  # the coda's block
        assert not torch.allclose(adapter.readout(z, 3, adapter.context(TOKENS)), logits)


def test_what_is_missing_is_told(folder, monkeypatch):
    torch.save({"lm_head.weight": torch.zeros(29, 12)}, folder / "model.pt")
    with pytest.raises(InputError, match="does not fit"):
        load_model(str(folder))
    (folder / "model.pt").unlink()
    with pytest.raises(InputError, match=r"no weights in .* pytorch_model\.bin or model\.pt"):
        load_model(str(folder))
    monkeypatch.setitem(sys.modules, "parcae_lm", None)
    with pytest.raises(InputError, match="package parcae_lm of the repository"):
        load_model(str(folder))


def test_a_fused_head_is_told():
    with pytest.raises(InputError, match="use_fused_head='pytorch'"):
        Parcae(toy_parcae.ParcaeConfig(use_fused_head="full-triton").construct_model())


@pytest.mark.filterwarnings("ignore")
def test_the_live_model_is_matched(tmp_path):
    parcae_lm = pytest.importorskip(
        "parcae_lm", reason="Parcae's live code is not importable: put a clone of SandyResearch/parcae on PYTHONPATH"
    )
    sizes = {"n_embd": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2}
    state = {"recurrent_embedding_dimension": 64, "recurrent_intermediation_embedding_dimension": 96}
    config = parcae_lm.create_config(
        "parcae-small-140m", **sizes, **state, vocab_size=37, block_size=16, logit_softcap=15.0
    )
    model = config.construct_model().eval()
    parcae_lm.save_pretrained(model, str(tmp_path))
    adapter: Any = load_model(str(tmp_path))
    model.initialize_state = adapter.initial_state  # the one thing it draws at random
    with torch.no_grad():
        for k, z in enumerate(run_loops(adapter, TOKENS, 3)):
            expected = model(TOKENS, return_logits=True, num_steps_pair=torch.tensor([k + 1, 0]))["logits"]
            torch.testing.assert_close(adapter.readout(z, k, adapter.context(TOKENS)), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["parcae-small-140m", "parcae-xlarge-1_3b"])
def test_its_native_form_is_the_live_model(name, tmp_path):
    parcae_lm = pytest.importorskip(
        "parcae_lm", reason="Parcae's live code is not importable: put a clone of SandyResearch/parcae on PYTHONPATH"
    )
    sizes = {"n_embd": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2}
    state = {"recurrent_embedding_dimension": 64, "recurrent_intermediation_embedding_dimension": 96}
    config = parcae_lm.create_config(name, **sizes, **state, vocab_size=37, block_size=16, state_init="zero")
    model = config.construct_model().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    parcae_lm.save_pretrained(model, str(tmp_path))
    native: Any = load_model(str(tmp_path))
    with torch.no_grad():
        for k in range(3):
            expected = model(TOKENS, return_logits=True, num_steps_pair=torch.tensor([k + 1, 0]))["logits"]
            torch.testing.assert_close(native(TOKENS, num_loops=k + 1).logits, expected, atol=1e-5, rtol=1e-4)
