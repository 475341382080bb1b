import json
from typing import Any

import pytest
import torch

from loopscale import InputError, run_loops
from loopscale.convert import convert_checkpoint, from_parcae, read_as_native, to_parcae
from loopscale.load import load_model
from tests.convert.toy_parcae import CONFIG, ToyParcae, weights_of
from tests.helpers import tiny_model

IDS = torch.randint(0, 37, (2, 9), generator=torch.Generator().manual_seed(3))
NATIVE: dict[str, Any] = {
    **{"position_embedding": "rope", "injection": "diagonal", "coda_input": "linear", "initial_state": "zeros"},
    **{"num_prelude_layers": 1, "num_coda_layers": 1, "mlp": "relu2", "prelude_norm": True, "value_embeddings": True},
    **{"qk_norm": True, "qk_norm_eps": torch.finfo(torch.float32).eps},
}


@pytest.fixture(scope="module", params=[{}, {"tie_embeddings": False, "n_layers_in_coda": 3, "mean_recurrence": 2}])
def parcae(request):
    config = {**CONFIG, **request.param}
    return weights_of(config), config


@pytest.fixture(scope="module")
def native(parcae):
    return from_parcae(*parcae)


def test_every_exit_is_parcaes(parcae, native):
    context = native.context(IDS)
    with torch.no_grad():
        for k, (z, expected) in enumerate(zip(run_loops(native, IDS, 4), ToyParcae(*parcae)(IDS, 4), strict=True)):
            torch.testing.assert_close(native.readout(z, k, context), expected, rtol=1e-6, atol=1e-7)


def test_greedy_text_is_parcaes_and_padding_is_honoured(parcae, native):
    toy, written = ToyParcae(*parcae), IDS[:1, :5]
    for _ in range(6):
        written = torch.cat([written, toy(written, native.num_loops)[-1][:, -1:].argmax(-1)], 1)
    both = torch.cat([torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[:1, :5]], 1), IDS[1:, :8]])
    mask = torch.ones_like(both)
    mask[0, :3] = 0
    out = native.generate(both, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert torch.equal(out[:1, 3:], written)


def test_back_is_exact(parcae, native):
    weights, config = parcae
    back, written = to_parcae(native)
    assert back.keys() == weights.keys() | {"freqs_cis"}
    assert all(torch.equal(back[name], weight) for name, weight in weights.items())
    assert {name: written[name] for name in config} == config


def test_a_folder_goes_there_and_back(parcae, tmp_path):
    weights, config = parcae
    there, here, back = (tmp_path / name for name in ("there", "here", "back"))
    there.mkdir()
    torch.save({name: weight.float() for name, weight in weights.items()}, there / "model.pt")
    (there / "config.json").write_text(json.dumps(config))
    native: Any = load_model(str(there))
    convert_checkpoint(str(there), here)
    convert_checkpoint(str(here), back, to="parcae")
    assert sorted(path.name for path in back.iterdir()) == ["config.json", "generation_config.json", "model.pt"]
    with torch.no_grad():
        torch.testing.assert_close(read_as_native(str(back))(IDS).logits, native(IDS).logits)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"injection_type": "linear"}, "injection_type='linear'"),
        ({"nonlin_name": "GELU"}, "nonlin_name='GELU'"),
        ({"norm_class_name": "LayerNorm"}, "norm_class_name="),
        ({"mlp_class_name": "GatedMLP"}, "mlp_class_name="),
        ({"prelude_norm": False}, "prelude_norm=False"),
        ({"qk_norm": False}, "qk_norm=False"),
        ({"bias": True}, "bias=True"),
        ({"qk_bias": True}, "qk_bias=True"),
        ({"logit_softcap": 15.0}, r"logit_softcap=15\.0"),
        ({"clip_qkv": 8.0}, r"clip_qkv=8\.0"),
        ({"init_strategy": "takase"}, "init_strategy='takase', which scales embeddings or logits"),
        ({"state_init": "unit"}, "state_init='unit'"),
        ({"recurrent_embedding_dimension": 64}, "recurrent_embedding_dimension=64"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2"),
        ({"rope_settings": {"rope_condense_ratio": 2}}, "rope_settings="),
        ({"n_layers_in_coda": 0}, "n_layers_in_coda is 0"),
    ],
)
def test_options_that_do_not_run_here_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        from_parcae({}, {**CONFIG, **changes})


def test_values_without_their_gates_are_told():
    weights = weights_of(CONFIG)
    with pytest.raises(InputError, match=r"1 weights are missing, among them .*core_block\.0\.attn\.ve_gate"):
        from_parcae({n: w for n, w in weights.items() if "core_block.0.attn.ve_gate" not in n}, CONFIG)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mlp": "gelu"}, "mlp='gelu'"),
        ({"value_embeddings": False}, "value_embeddings=False"),
        ({"prelude_norm": False}, "prelude_norm=False"),
        ({"injection": {"kind": "diagonal", "rule": "zoh"}}, "injection="),
        ({"qk_norm_eps": 1e-6}, "qk_norm_eps=1e-06"),
        ({"initial_state": "embedded"}, "initial_state='embedded'"),
        ({"num_stack_layers": 1, "num_loops": 2}, "value_embeddings where these have them"),
        ({"embedding_scale": 2.0}, r"embedding_scale=2\.0"),
    ],
)
def test_what_a_parcae_lacks_is_named(fields, named):
    with pytest.raises(InputError, match=f"cannot be written as a Parcae, which has no .*{named}"):
        to_parcae(tiny_model(**{**NATIVE, **fields}))


def test_weights_of_its_norm_of_queries_are_told():
    model = tiny_model(**NATIVE)
    to_parcae(model)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_norm.weight[0] = 2
    with pytest.raises(InputError, match=r"weighted qk_norm \(model\.layers\.0\.self_attn\.q_norm\.weight\)"):
        to_parcae(model)
