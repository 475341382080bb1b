"""`model.generate` as transformers users expect it: the cache changes nothing but the speed."""

import io
from contextlib import redirect_stdout
from itertools import product

import pytest
import torch
from transformers import DynamicCache, StaticCache, TextStreamer

from loopscale import InputError
from tests.helpers import tiny_model

READOUTS = ["rmsnorm", "layernorm", "raw", "final_rmsnorm"]
RECURRENCES = ["residual", "rmsnorm", "damped"]
SHAPES = {
    "learned": {},
    "rope": {"position_embedding": "rope"},
    "gqa": {"position_embedding": "rope", "num_attention_heads": 4, "num_key_value_heads": 2},
    "sandwich": {"norm_placement": "sandwich", "block_norm": "layernorm", "exit_gate": True},
}
MODES = {
    "greedy": {"do_sample": False},
    "sample": {"do_sample": True, "top_k": 0},
    "beams": {"do_sample": False, "num_beams": 3},
    "beam-sample": {"do_sample": True, "num_beams": 2, "num_return_sequences": 2},
}
NEW = 6
PAD = 30


def left_padded() -> dict[str, torch.Tensor]:
    """Three prompts of lengths 7, 4 and 1."""
    ids = torch.randint(0, PAD, (3, 7))
    mask = torch.ones_like(ids)
    for row, pads in enumerate([0, 3, 6]):
        ids[row, :pads], mask[row, :pads] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model, inputs, **options):
    torch.manual_seed(1)
    options = {"max_new_tokens": NEW, "pad_token_id": PAD, **options}
    return model.generate(**inputs, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("readout", "recurrence"), list(product(READOUTS, RECURRENCES)))
def test_cached_is_uncached_for_every_readout_recurrence_and_depth(readout, recurrence, dtype):
    model = tiny_model(readout=readout, recurrence=recurrence).to(dtype)
    inputs = left_padded()
    for loops in (None, 1, 5):  # the default is 3: 5 is above the trained depth
        cached, uncached = (
            generate(model, inputs, use_cache=c, num_loops=loops, do_sample=False) for c in (True, False)
        )
        assert torch.equal(cached, uncached), loops


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_mode_shape_and_cache_gives_the_uncached_text(shape, mode):
    model, inputs = tiny_model(**SHAPES[shape]).double(), left_padded()
    uncached = generate(model, inputs, use_cache=False, num_loops=4, **MODES[mode])
    for cache in ("dynamic", "static"):
        cached = generate(model, inputs, cache_implementation=cache, num_loops=4, **MODES[mode])
        assert torch.equal(cached, uncached), cache


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_a_padded_batch_is_the_row_alone(shape):
    model, inputs = tiny_model(**SHAPES[shape]).double(), left_padded()
    together = generate(model, inputs, do_sample=False)
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        alone = generate(model, {"input_ids": inputs["input_ids"][row : row + 1, mask]}, do_sample=False)
        assert torch.equal(together[row, -NEW:], alone[0, -NEW:])


def test_depths_differ_so_that_the_tests_above_can_fail():
    model, inputs = tiny_model(), left_padded()
    texts = {tuple(generate(model, inputs, num_loops=k, do_sample=False).flatten().tolist()) for k in (1, 2, 3, 5)}
    assert len(texts) > 1


def test_streaming_prints_the_text_as_it_comes():
    class Letters:
        def decode(self, tokens, **_):
            return "".join(chr(97 + int(t) % 26) for t in tokens)

    model, prompt = tiny_model(), torch.randint(0, PAD, (1, 4))
    with redirect_stdout(io.StringIO()) as out:
        text = model.generate(
            prompt, max_new_tokens=6, do_sample=False, streamer=TextStreamer(Letters(), skip_prompt=True)
        )
    assert out.getvalue().strip() == Letters().decode(text[0, 4:])


def test_other_depths_on_one_cache_are_refused():
    model, cache = tiny_model(), DynamicCache()
    ids = torch.randint(0, PAD, (1, 5))
    model(ids, cache=cache, num_loops=1)
    with pytest.raises(InputError, match="5 tokens at the first loop and 0 at the deepest"):
        model(ids[:, :1], cache=cache, num_loops=3)


def test_a_cache_of_fewer_slots_than_the_call_needs_is_refused():
    model = tiny_model()
    with pytest.raises(InputError, match="has 6 slots, one per layer and loop, too few"):
        model(torch.zeros(1, 5, dtype=torch.long), cache=StaticCache(model.config, max_cache_len=9), num_loops=6)


def test_fewer_loops_from_some_token_on_are_fine_until_the_depth_returns():
    model, cache = tiny_model(), DynamicCache()
    ids = torch.randint(0, PAD, (1, 5))
    model(ids, cache=cache)
    model(ids[:, :1], cache=cache, num_loops=1)
    with pytest.raises(InputError, match="6 tokens at the first loop and 5"):
        model(ids[:, :1], cache=cache)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("length", "options", "words"),
    [
        (0, {}, "prompt is empty"),
        (5, {"num_loops": 0}, "num_loops is 0"),
        (5, {"num_loops": -2}, "num_loops is -2"),
        (5, {"num_loops": 1.5}, "num_loops is 1.5"),
        (44, {}, "need 49 positions, but this model has 48"),
    ],
)
def test_bad_input_is_named(length, options, words, cached):
    prompt = {"input_ids": torch.zeros(1, length, dtype=torch.long)}
    with pytest.raises(InputError, match=words):
        generate(tiny_model(), prompt, use_cache=cached, **options)


def test_a_text_that_just_fits_is_written():
    # the last new token is never fed, so 43 + 6 tokens need 48 positions
    assert generate(tiny_model(), {"input_ids": torch.randint(0, PAD, (1, 43))}, do_sample=False).shape == (1, 49)
