import pytest
import torch
from transformers import (
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo3Config,
    Phi3Config,
    Qwen2Config,
    SmolLM3Config,
)

from loopscale import InputError
from loopscale.evaluate import depth_curve
from loopscale.model.parts import CARRIES, INJECTIONS
from loopscale.retrofit import retrofit, scan_cores
from loopscale.retrofit.family import refuse
from tests.helpers import tiny_config
from tests.retrofit.originals import LAYERS, ORIGINALS, SIZES, original, prompts

CORE = (1, LAYERS - 1)


@pytest.mark.parametrize("name", ORIGINALS)
def test_with_one_loop_logits_and_greedy_text_are_those_of_the_original(name):
    model, ids = original(name), prompts(length=24)  # longer than the text that scaled RoPE was made from
    looped = retrofit(model, CORE, num_loops=3)
    assert torch.allclose(model(ids).logits, looped(ids, num_loops=1).logits, atol=1e-4)
    assert not torch.allclose(model(ids).logits, looped(ids).logits, atol=1e-2)
    short = ids[:, :7]
    mask = torch.ones_like(short)
    greedy = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    assert torch.equal(looped.generate(short, num_loops=1, **greedy), model.generate(short, **greedy))


def test_loops_apply_the_core_again():
    model, ids = original(), prompts(2)
    looped = retrofit(model, CORE, num_loops=2)
    first, last = CORE
    layers = model.model.layers
    unrolled = torch.nn.ModuleList([*layers[:last], *layers[first:]])
    model.model.layers = unrolled
    model.config.num_hidden_layers = len(unrolled)
    assert torch.allclose(model(ids, use_cache=False).logits, looped(ids).logits, atol=1e-4)


def test_it_is_a_copy_in_the_precision_of_the_original():
    model = original(dtype=torch.bfloat16)
    looped = retrofit(model, CORE)
    assert looped.dtype == torch.bfloat16
    assert not looped.training
    with torch.no_grad():
        looped.model.layers[0].mlp.up_proj.weight.zero_()
    assert model.model.layers[1].mlp.up_proj.weight.any()


def test_what_a_part_adds_has_that_precision_too():
    looped = retrofit(original(dtype=torch.bfloat16), CORE, injection="linear", relaxation="learned")
    assert looped.dtype == torch.bfloat16


def test_every_layer_of_the_original_is_left_in_its_mode():
    model = original().train()
    model.model.layers[0].eval()
    retrofit(model, CORE)
    assert model.training and model.model.layers[1].training and not model.model.layers[0].training


@pytest.mark.parametrize("kind", INJECTIONS)
def test_injections_start_at_the_original_or_are_refused(kind):
    model, ids = original(), prompts(2)
    try:
        looped = retrofit(model, CORE, num_loops=3, injection=kind)
    except InputError as error:
        assert kind in {"add", "diagonal"}
        assert "take linear" in str(error)
        return
    assert torch.allclose(model(ids).logits, looped(ids, num_loops=1).logits, atol=1e-4)


@pytest.mark.parametrize("kind", CARRIES)
def test_what_is_between_loops_leaves_one_loop_alone(kind):
    model, ids = original(), prompts(2)
    looped = retrofit(model, CORE, num_loops=3, recurrence=kind)
    assert torch.allclose(model(ids).logits, looped(ids, num_loops=1).logits, atol=1e-4)


@pytest.mark.parametrize("core", [(0, LAYERS), (0, 2), (3, LAYERS), (2, 3)])
def test_any_core_is_the_original_at_one_loop(core):
    model, ids = original(), prompts(2)
    looped = retrofit(model, core, num_loops=2)
    assert torch.allclose(model(ids).logits, looped(ids, num_loops=1).logits, atol=1e-4)
    assert (looped.config.num_prelude_layers, looped.config.num_coda_layers) == (core[0], LAYERS - core[1])


@pytest.mark.parametrize("kind", ["learned", "blind"])
def test_every_exit_of_a_mixed_loop_starts_as_the_original(kind):
    model, ids = original(), prompts(2)
    looped = retrofit(model, CORE, num_loops=3, relaxation=kind)
    for loops in (1, 2, 3):
        assert torch.allclose(model(ids).logits, looped(ids, num_loops=loops).logits, atol=1e-4)


def test_an_added_input_starts_without_a_gain():
    model, ids = original(), prompts(2)
    looped = retrofit(model, CORE, num_loops=3, injection={"kind": "add", "gain": 0.0})
    plain = retrofit(model, CORE, num_loops=3)
    assert torch.allclose(plain(ids).logits, looped(ids).logits, atol=1e-5)


def test_damped_loops_are_those_of_the_scan():
    model, batches = original(), [prompts(4, 20)]
    points = {point.damped: point for point in scan_cores(model, batches, [CORE], loops=(3,)).points}
    damped = retrofit(model, CORE, num_loops=3, relaxation={"kind": "fixed", "factor": 1 / 3})
    found = depth_curve(damped, batches, 3)[2]
    assert found.cross_entropy == pytest.approx(points[True].cross_entropy, abs=1e-5)
    assert found.cross_entropy != pytest.approx(points[False].cross_entropy, abs=1e-3)


def test_without_its_message_every_loop_of_a_restart_is_the_original():
    model, ids = original(), prompts(2)
    looped = retrofit(model, CORE, num_loops=3, injection="restart")
    assert torch.allclose(model(ids).logits, looped(ids).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (MistralConfig(**SIZES, sliding_window=8), "sliding_window 8"),
        (Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=2), "sliding_window 8"),
        (LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}), "rope_type"),
        (LlamaConfig(**SIZES, hidden_act="gelu"), "hidden_act 'gelu'"),
        (SmolLM3Config(**SIZES), "no_rope_layers"),
        (MixtralConfig(**SIZES), "num_local_experts 8"),
        (Gemma2Config(**SIZES), "attn_logit_softcapping 50"),
        (GraniteConfig(**SIZES, embedding_multiplier=12.0), "embedding_multiplier 12.0"),
        (Olmo3Config(**SIZES), "'olmo3' has no looped form"),
        (GPT2Config(), "'gpt2' has no looped form"),
        (Phi3Config(**SIZES), "'phi3' has no looped form"),
        (tiny_config(), "'loopscale' is a looped one already"),
    ],
)
def test_what_a_looped_model_lacks_is_refused_by_the_name_of_its_field(config, field):
    with pytest.raises(InputError, match=field) as refused:
        refuse(config.to_dict())
    assert str(refused.value).count(".") <= 2  # one sentence


@pytest.mark.parametrize("core", [(2, 2), (3, 1), (-1, 2), (0, LAYERS + 1)])
def test_a_core_that_is_not_there_is_refused(core):
    with pytest.raises(InputError, match=f"range of the model's {LAYERS} layers"):
        retrofit(original(), core)


def test_what_nobody_thought_of_is_found_by_running_both():
    model = original()
    model.model.layers[0].register_forward_hook(lambda _, inputs, output: 2 * output)
    with pytest.raises(InputError, match="another model"):
        retrofit(model, CORE)
