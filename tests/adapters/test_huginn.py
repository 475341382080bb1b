import importlib
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import dynamic_module_utils

from loopscale import InputError, run_loops
from loopscale.adapters import Huginn
from loopscale.load import load_model
from loopscale.objective import Terminal
from tests.adapters import toy_raven

CODE = {"AutoConfig": "toy_raven.RavenConfig", "AutoModelForCausalLM": "toy_raven.RavenForCausalLM"}
TOKENS = torch.arange(18).view(2, 9)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A folder as the hub has it: config, weights, and the code that reads them."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(toy_raven.RavenForCausalLM, "_tied_weights_keys", {"lm_head.weight": "transformer.wte.weight"})
    folder = tmp_path / "huginn"
    folder.mkdir()
    model = toy_raven.RavenForCausalLM(toy_raven.RavenConfig())
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "auto_map": CODE, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(Path(toy_raven.__file__), folder)
    return folder, model.eval()


def whole_model(model, tokens, num_loops):
    injected, _ = model.embed_inputs(tokens)
    state, rotary = torch.zeros_like(injected), model.freqs_cis[:, : tokens.shape[1]]
    for k in range(num_loops):
        state, _ = model.core_block_forward(state, injected, rotary, None, None, torch.tensor(0), k)
    return model.predict_from_latents(state).logits


def test_its_code_runs_only_if_trusted(checkpoint):
    folder, model = checkpoint
    with pytest.raises(InputError, match="trust_remote_code"):
        load_model(str(folder))
    adapter = load_model(str(folder), num_loops=2, trust_remote_code=True)
    assert isinstance(adapter, Huginn) and not adapter.training
    assert (adapter.num_loops, adapter.trained_loops, adapter.positions) == (2, 4, 24)
    assert adapter.supervision == Terminal()
    with torch.no_grad():
        *_, z = run_loops(adapter, TOKENS)
        torch.testing.assert_close(adapter.readout(z, 1, adapter.context(TOKENS)), whole_model(model, TOKENS, 2))


def test_why_it_has_no_native_form_is_told_beside_how_to_run_it(checkpoint):
    folder, _ = checkpoint
    with pytest.raises(InputError, match=r"Huginn checkpoint: n_heads is missing.*; to run it as it is: "):
        load_model(str(folder))


def test_results_repeat(checkpoint):
    adapter = Huginn(checkpoint[1])
    with torch.no_grad():
        first, second = (list(run_loops(adapter, TOKENS))[-1] for _ in range(2))
    assert torch.equal(first, second)


def test_weights_out_of_place_are_told(checkpoint):
    folder, _ = checkpoint
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights of .* cannot be read"):
        load_model(str(folder), trust_remote_code=True)
    (folder / "toy_raven.py").unlink()
    with pytest.raises(InputError, match=r"code of the Huginn .* cannot be loaded"):
        load_model(str(folder), trust_remote_code=True)


@pytest.fixture(scope="module")
def live():
    """The live code's module; the package's own __init__ needs its training dependencies and is passed over."""
    spec = importlib.util.find_spec("recpre")
    places = list(spec.submodule_search_locations) if spec else []
    if not any((Path(place) / "raven_modeling_minimal.py").is_file() for place in places):
        pytest.skip("Huginn's live code is not importable: put a clone of seal-rg/recurrent-pretraining on PYTHONPATH")
    package = types.ModuleType("recpre")
    package.__path__ = places
    sys.modules["recpre"] = package
    return importlib.import_module("recpre.raven_modeling_minimal")


@pytest.mark.filterwarnings("ignore")
def test_the_live_model_is_matched(live, tmp_path):
    live.RavenForCausalLM._tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    sizes = {"n_embd": 32, "n_heads": 2, "n_layers": 4, "vocab_size": 37, "intermediate_size": 48, "block_size": 16}
    layers = {"n_layers_in_prelude": 1, "n_layers_in_recurrent_block": 2, "n_layers_in_coda": 1, "mean_recurrence": 4}
    model = live.RavenForCausalLM(live.RavenConfig(**sizes, **layers, padding_multiple=1)).eval()
    model.save_pretrained(tmp_path)
    adapter: Any = load_model(str(tmp_path), trust_remote_code=True)  # the user's import registered its code
    native: Any = load_model(str(tmp_path))
    assert isinstance(adapter, Huginn) and native.trained_loops == 4
    with torch.no_grad():
        states = list(run_loops(adapter, TOKENS, 3))
        for k, z in enumerate(states):
            expected = model(TOKENS, num_steps=torch.tensor([k + 1]), init_scale=0.0).logits
            torch.testing.assert_close(adapter.readout(z, k, adapter.context(TOKENS)), expected)
            torch.testing.assert_close(native(TOKENS, num_loops=k + 1).logits, expected, atol=1e-5, rtol=1e-5)
    norm = model.transformer.core_block[-1].norm_4.weight
    for z in states:  # closed by architecture: every state has the scale of the last norm
        torch.testing.assert_close(z.pow(2).mean(-1), norm.pow(2).mean().expand(z.shape[:2]), rtol=1e-3, atol=0)
