import contextlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopscale import InputError, LoopedForCausalLM, run_loops
from loopscale.convert import from_ouro, to_ouro
from loopscale.convert.ouro import ARCHITECTURE, OPTIONS, SIZES
from tests.helpers import tiny_model

PROMPT = 8


def exits(model, input_ids):
    with torch.no_grad():
        states = list(run_loops(model, input_ids))
        logits = torch.stack([model.readout(z, k) for k, z in enumerate(states)])
        gates = torch.stack([model.exit_probability(z, k) for k, z in enumerate(states)])
    return logits, gates


def test_logits_and_exit_probabilities_of_every_loop_match(ouro):
    logits, gates = exits(ouro.model(), ouro("input_ids"))
    torch.testing.assert_close(logits, ouro("logits"), atol=2e-4, rtol=0)
    torch.testing.assert_close(gates, ouro("exit_lambda"), atol=2e-4, rtol=0)


def test_numpy_weights_do_as_well(ouro):
    model = from_ouro({k: v.numpy() for k, v in ouro.weights.items()}, ouro.config)
    torch.testing.assert_close(exits(model, ouro("input_ids"))[0], ouro("logits"), atol=2e-4, rtol=0)


@pytest.mark.parametrize("cached", [True, False])
def test_greedy_continuation_matches_alone_and_batched(ouro, cached):
    model, greedy = ouro.model(), ouro("greedy")
    options = {"max_new_tokens": greedy.shape[1] - PROMPT, "do_sample": False, "use_cache": cached, "eos_token_id": -1}
    both = model.generate(greedy[:, :PROMPT], attention_mask=torch.ones(2, PROMPT, dtype=torch.long), **options)
    assert torch.equal(both, greedy)
    for row in greedy:
        alone = model.generate(row[None, :PROMPT], attention_mask=torch.ones(1, PROMPT, dtype=torch.long), **options)
        assert torch.equal(alone[0], row)


@pytest.mark.parametrize("cached", [True, False])
def test_greedy_continuation_matches_left_padded(ouro, cached):
    model, greedy = ouro.model(), ouro("greedy")
    new, pad = greedy.shape[1] - PROMPT, 3
    prompts = torch.full((2, PROMPT + pad), 7)
    mask = torch.ones_like(prompts)
    prompts[0, pad:], mask[0, :pad] = greedy[0, :PROMPT], 0
    prompts[1] = greedy[1, : PROMPT + pad]  # a longer prompt of the same continuation
    out = model.generate(
        prompts, attention_mask=mask, max_new_tokens=new, do_sample=False, use_cache=cached, eos_token_id=-1
    )
    assert torch.equal(out[0, pad:], greedy[0])
    assert torch.equal(out[1, : greedy.shape[1]], greedy[1])


def test_a_saved_model_comes_back_with_its_one_norm(ouro, tmp_path):
    model = ouro.model()
    model.save_pretrained(tmp_path)
    again = LoopedForCausalLM.from_pretrained(tmp_path).eval()
    assert again.model.recurrence.norm.weight is again.readout_norm.norm.weight
    assert torch.equal(exits(again, ouro("input_ids"))[0], exits(model, ouro("input_ids"))[0])


def test_config_says_what_an_ouro_is(ouro):
    config = from_ouro(ouro.weights, {**ouro.config, "early_exit_threshold": 0.7}).config
    assert (config.supervision, config.recurrence, config.readout) == ("exit_gate", "rmsnorm", "rmsnorm")
    assert (config.num_loops, config.trained_loops, config.exit_threshold) == (3, 3, 0.7)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}


def test_the_way_back_gives_the_same_checkpoint(ouro):
    weights, config = to_ouro(ouro.model())
    assert weights.keys() == ouro.weights.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in ouro.weights.items())
    assert {key: config[key] for key in ouro.config} == ouro.config
    assert (config["model_type"], config["architectures"]) == ("ouro", ["OuroForCausalLM"])


def test_precision_of_the_weights_is_kept(ouro):
    model = from_ouro({k: v.bfloat16() for k, v in ouro.weights.items()}, ouro.config)
    assert model.dtype == torch.bfloat16
    assert to_ouro(model)[1]["dtype"] == "bfloat16"
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32  # as transformers keeps it


def test_tied_ouro_needs_no_head(ouro):
    weights = {k: v for k, v in ouro.weights.items() if k != "lm_head.weight"}
    model = from_ouro(weights, {**ouro.config, "tie_word_embeddings": True})
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.recurrence.norm.weight is model.readout_norm.norm.weight
    assert to_ouro(model)[0].keys() == weights.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "scaled RoPE"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"head_dim": 16}, "head_dim 16"),
        ({"total_ut_steps": None}, "total_ut_steps is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ({"hidden_size": 56}, r"shape \(89, 48\)"),
        ({"hidden_size": 52}, "even head size"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_what_cannot_be_run_is_said(ouro, change, words):
    change = {"head_dim": None, **change} if "hidden_size" in change else change
    with pytest.raises(InputError, match=words):
        from_ouro(ouro.weights, {**ouro.config, **change})


def test_missing_and_surplus_weights_are_named(ouro):
    with pytest.raises(InputError, match=r"model\.norm\.weight"):
        from_ouro({k: v for k, v in ouro.weights.items() if k != "model.norm.weight"}, ouro.config)
    with pytest.raises(InputError, match=r"model\.layers\.2"):
        from_ouro({**ouro.weights, "model.layers.2.input_layernorm.weight": torch.ones(48)}, ouro.config)


def test_a_model_that_is_no_ouro_cannot_become_one():
    with pytest.raises(InputError, match="norm_placement='pre'"):
        to_ouro(tiny_model())


@pytest.mark.parametrize(
    "fields",
    [
        *({"injection": "add"}, {"mlp": "gelu"}, {"attention_bias": True}, {"qk_norm": True}, {"head_dim": 10}),
        *({"relaxation": "fixed"}, {"num_prelude_layers": 1}, {"num_coda_layers": 1}, {"embedding_scale": 2.0}),
    ],
)
def test_what_an_ouro_lacks_is_named(fields):
    (name,) = fields
    with pytest.raises(InputError, match=f"has no {name}="):
        to_ouro(tiny_model(**ARCHITECTURE | fields))


JSON = st.none() | st.booleans() | st.integers(-3, 100) | st.floats(allow_nan=False) | st.text(max_size=4) | st.just([])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*SIZES, *OPTIONS, "rope_theta", "rope_scaling", "layer_types", "head_dim"]), value=JSON)
def test_whatever_stands_in_a_config_is_run_or_told(ouro, key, value):
    with contextlib.suppress(InputError):
        from_ouro(ouro.weights, {**ouro.config, key: value})
