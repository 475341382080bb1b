import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loopscale import InputError, run_loops
from loopscale.audit import static_verdict
from loopscale.convert import convert_checkpoint, from_huginn, read_as_native, to_huginn
from loopscale.load import load_model
from tests.convert.toy_huginn import CONFIG, ToyHuginn, weights_of
from tests.helpers import tiny_model

IDS = torch.randint(0, 37, (2, 9), generator=torch.Generator().manual_seed(3))
NATIVE: dict[str, Any] = {
    "position_embedding": "rope",
    "residual": "post_add",
    "injection": "linear",
    "num_prelude_layers": 1,
    "num_coda_layers": 1,
    "coda_input": "readout",
    "initial_state": "zeros",
    "embedding_scale": 4.0,  # of width 16
}


@pytest.fixture(scope="module", params=[{}, {"tie_embeddings": False, "qk_bias": False, "n_layers_in_prelude": 2}])
def huginn(request):
    config = {**CONFIG, **request.param}
    return weights_of(config), config


@pytest.fixture(scope="module")
def native(huginn):
    return from_huginn(*huginn)


def test_every_exit_is_huginns(huginn, native):
    context = native.context(IDS)
    with torch.no_grad():
        for k, (z, expected) in enumerate(zip(run_loops(native, IDS, 5), ToyHuginn(*huginn)(IDS, 5), strict=True)):
            torch.testing.assert_close(native.readout(z, k, context), expected, rtol=1e-6, atol=1e-8)


def test_greedy_text_is_huginns_and_padding_is_honoured(huginn, native):
    toy, bare = ToyHuginn(*huginn), IDS[:1, :5]
    written = bare
    for _ in range(6):
        written = torch.cat([written, toy(written, 3)[-1][:, -1:].argmax(-1)], 1)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), bare], 1)
    both = torch.cat([padded, IDS[1:, :8]])
    mask = torch.ones_like(both)
    mask[0, :3] = 0
    out = native.generate(both, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert torch.equal(out[:1, 3:], written)


def test_back_is_exact(huginn, native):
    weights, config = huginn
    back, written = to_huginn(native)
    assert back.keys() == weights.keys() | {"freqs_cis"}
    assert all(torch.equal(back[name], weight) for name, weight in weights.items())
    assert {name: written[name] for name in config} == config


def test_the_static_verdict_of_scale_is_that_it_is_removed(native):
    assert static_verdict(native.config)["scale"].verdict == "removed"


def test_a_folder_goes_there_and_back(huginn, tmp_path):
    weights, config = huginn
    there, here, back = (tmp_path / name for name in ("there", "here", "back"))
    there.mkdir()
    save_file({name: weight.float() for name, weight in weights.items()}, there / "model.safetensors")
    (there / "config.json").write_text(json.dumps(config))
    native: Any = load_model(str(there), num_loops=2)
    assert (native.num_loops, native.trained_loops) == (2, 3)
    convert_checkpoint(str(there), here)
    convert_checkpoint(str(here), back, to="huginn")
    again = read_as_native(str(back))
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, native(IDS, num_loops=3).logits)
    written = json.loads((back / "config.json").read_text())
    assert written["model_type"] == "huginn_raven" and "n_embd" in written


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bias": True}, "bias=True"),
        ({"injection_type": "add"}, "injection_type='add'"),
        ({"block_class_name": "TransformerPreNormBlock"}, "block_class_name="),
        ({"norm_class_name": "LayerNorm"}, "norm_class_name="),
        ({"mlp_class_name": "BaseMLP"}, "mlp_class_name="),
        ({"nonlin_name": "GELU"}, "nonlin_name="),
        ({"test_time_noise": 0.1}, "test_time_noise=0.1"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2"),
        ({"n_embd": None}, "n_embd is missing"),
        ({"n_layers_in_coda": 0}, "n_layers_in_coda is 0"),
        ({"rope_base": 0}, "rope_base is 0"),
        ({"n_heads": 5}, "n_embd=32 for n_heads=5"),
    ],
)
def test_options_that_do_not_run_here_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        from_huginn({}, {**CONFIG, **changes})


def test_weights_missing_surplus_and_of_another_base():
    weights = weights_of(CONFIG)
    with pytest.raises(InputError, match=r"not whole: 1 weights are missing, among them transformer\.ln_f\.weight"):
        from_huginn({n: w for n, w in weights.items() if "ln_f" not in n}, CONFIG)
    with pytest.raises(InputError, match=r"1 unknown weights, among them transformer\.other"):
        from_huginn({**weights, "transformer.other": torch.zeros(1)}, CONFIG)
    back, _ = to_huginn(from_huginn(weights, CONFIG))
    with pytest.raises(InputError, match="freqs_cis are not those of rope_base 10000"):
        from_huginn(back, {**CONFIG, "rope_base": 10_000})


def test_names_of_wrappers_are_left_out():
    nested = {f"_orig_mod.{name}": weight for name, weight in weights_of(CONFIG).items()}
    assert from_huginn(nested, CONFIG).num_loops == 3


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"residual": "pre"}, "residual='pre'"),
        ({"injection": "add"}, "injection='add'"),
        ({"readout": "raw"}, "readout='raw'"),
        ({"coda_input": "state"}, "coda_input='state'"),
        ({"recurrence": "rmsnorm"}, "recurrence='rmsnorm'"),
        ({"mlp": "gelu"}, "mlp='gelu'"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"num_key_value_heads": 1}, "num_key_value_heads=1"),
        ({"head_dim": 6}, "head_dim=6"),
        ({"embedding_scale": 1.0}, r"embedding_scale=1\.0"),
        ({"initial_state": "embedded"}, "initial_state='embedded'"),
        ({"num_prelude_layers": 0}, "num_prelude_layers=0"),
        ({"position_embedding": "learned"}, "position_embedding='learned'"),
    ],
)
def test_what_a_huginn_lacks_is_named(fields, named):
    with pytest.raises(InputError, match=f"cannot be written as a Huginn, which has no .*{named}"):
        to_huginn(tiny_model(**{**NATIVE, **fields}))


def test_a_model_of_ours_becomes_a_huginn_unless_its_values_have_biases(caplog):
    model = tiny_model(**NATIVE, attention_bias=True, exit_gate=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= not name.endswith("v_proj.bias")
    weights, config = to_huginn(model)
    assert "exit gate is left out" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(from_huginn(weights, config)(IDS[:, :7] % 31).logits, model(IDS[:, :7] % 31).logits)
        model.model.layers[0].self_attn.v_proj.bias += 1
    with pytest.raises(InputError, match=r"attention_bias of values \(model\.layers\.0\.self_attn\.v_proj\.bias\)"):
        to_huginn(model)
