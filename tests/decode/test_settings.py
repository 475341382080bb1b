"""Every setting of a generation_config is followed, without effect, or named: by every decoder."""

import warnings

import pytest
import torch
from transformers import GenerationConfig

from loopscale import InputError
from loopscale.decode import early_exit_generate, full_depth_generate, speculative_generate
from loopscale.decode.settings import FOLLOWED, HARMLESS, SAMPLING, leaves_alone
from loopscale.hf import prepared_generation
from tests.helpers import tiny_model

PROMPT = torch.randint(1, 31, (1, 8), generator=torch.Generator().manual_seed(2))
NEW = 16
# values that change a text of the model below
CHANGING = {
    "repetition_penalty": 1.8,
    "encoder_repetition_penalty": 1.8,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[5], [7, 9]],
    "forced_bos_token_id": 4,
    "forced_eos_token_id": 3,
    "suppress_tokens": list(range(1, 20)),
    "begin_suppress_tokens": [29],
    "sequence_bias": [[[6], 30.0]],
    "exponential_decay_length_penalty": (4, 3.0),
    "min_length": 20,
    "min_new_tokens": 12,
    "eos_token_id": [2, 17],
    "pad_token_id": 29,
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "max_length": 9,
    "max_new_tokens": 2,
}
NEUTRAL_HERE = {"pad_token_id", "renormalize_logits", "remove_invalid_values", "max_length", "max_new_tokens"}
# 30 comes early in the text, 2 never
ENDS = {"min_length": 30, "min_new_tokens": 30, "forced_eos_token_id": 2, "exponential_decay_length_penalty": 2}
NAMED = {
    "do_sample": True,
    "num_beams": 2,
    "num_return_sequences": 2,
    "guidance_scale": 1.5,
    "watermarking_config": {"greenlist_ratio": 0.3},
    "stop_strings": ["x"],
    "max_time": 1.0,
    "token_healing": True,
    "penalty_alpha": 0.5,
    "dola_layers": "low",
    "constraints": ["a"],
    "force_words_ids": [[1]],
    "diversity_penalty": 0.5,
    "num_beam_groups": 2,
    "cache_implementation": "quantized",
}


class Never:
    """A rule that lets no token leave early."""

    def watch(self, model):
        return lambda k, z, logits: torch.zeros(z.shape[:2], dtype=torch.bool)


WAYS = {
    "full depth": full_depth_generate,
    "speculative": speculative_generate,
    "early exit": lambda *args, **options: early_exit_generate(*args, rule=Never(), **options),
}


def model_with(**settings):
    torch.manual_seed(3)
    model = tiny_model(init="normal", initializer_range=0.4)
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


def written_by_generate(model, prompt=PROMPT, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(prompt, max_new_tokens=NEW, **options)


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("way", WAYS)
def test_a_setting_that_changes_the_text_is_followed(name, way):
    settings = {"eos_token_id": ENDS[name], "pad_token_id": 0} if name in ENDS else {}
    prompt = PROMPT[:, :1] if name == "forced_bos_token_id" else PROMPT
    model = model_with(**{**settings, name: CHANGING[name]})
    want = written_by_generate(model, prompt)
    assert torch.equal(WAYS[way](model, prompt, NEW).sequences, want)
    assert name in NEUTRAL_HERE or not torch.equal(want, written_by_generate(model_with(**settings), prompt))


@pytest.mark.parametrize("name", [None, *sorted({*FOLLOWED, *HARMLESS, *SAMPLING} & {*CHANGING, "use_cache", "top_k"})])
def test_logits_that_are_said_to_be_left_alone_are(name):
    settings = {} if name is None else {name: {"use_cache": True, "top_k": 5, **CHANGING}[name]}
    model = model_with(**{"eos_token_id": 2, "pad_token_id": 0, **settings})
    pad = model.generation_config.pad_token_id
    for prompt in (PROMPT, torch.tensor([[0, 0, 29, 29, 5, 6]])):
        processors, mask = prepared_generation(model, prompt, None, [], {"max_new_tokens": NEW, "do_sample": False})
        same = not processors and (mask is None or bool(mask.all()))
        assert same or not leaves_alone(model, prompt, pad)
        assert not same or leaves_alone(model, prompt, pad) or name == "renormalize_logits"


@pytest.mark.parametrize("way", WAYS)
def test_settings_together_on_padded_rows(way):
    model = model_with(repetition_penalty=1.3, no_repeat_ngram_size=3, min_new_tokens=5, eos_token_id=2, pad_token_id=0)
    rows = torch.tensor([[0, 0, 0, 5, 6, 7], [1, 2, 3, 4, 5, 6], [0, 8, 9, 8, 9, 8]])
    want = written_by_generate(model, rows, attention_mask=(rows != 0).long())
    for given in ({}, {"attention_mask": (rows != 0).float()}, {"attention_mask": rows != 0}):
        assert torch.equal(WAYS[way](model, rows, NEW, **given).sequences, want)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("way", WAYS)
def test_a_setting_that_cannot_be_followed_is_named(name, way):
    bare = full_depth_generate(model_with(), PROMPT, NEW).sequences
    model = model_with(**{name: NAMED[name]})
    with pytest.warns(UserWarning, match=rf"generation_config sets {name} .*use model.generate") as said:
        found = WAYS[way](model, PROMPT, NEW).sequences
    assert len(said) == 1 and torch.equal(found, bare)
    assert getattr(model.generation_config, name) == NAMED[name]


@pytest.mark.parametrize("temperature", [None, 1.0])
@pytest.mark.parametrize("way", WAYS)
def test_logits_that_are_not_finite_are_told_and_write_nothing(way, temperature):
    model = model_with()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="logits are not finite"):
        WAYS[way](model, PROMPT, NEW, temperature=temperature)


def test_a_setting_of_a_later_version_is_named():
    with pytest.warns(UserWarning, match="made_up_tomorrow"):
        full_depth_generate(model_with(made_up_tomorrow=3), PROMPT, 2)


def test_every_setting_has_its_place():
    known = FOLLOWED | SAMPLING | HARMLESS | set(NAMED)
    assert {name for name in vars(GenerationConfig()) if not name.startswith("_")} <= known
    assert set(CHANGING) == FOLLOWED
    assert not FOLLOWED & SAMPLING and not FOLLOWED & HARMLESS and not SAMPLING & HARMLESS and not set(NAMED) & HARMLESS


@pytest.mark.parametrize("name", sorted(SAMPLING))
def test_settings_of_sampling_do_nothing_to_a_greedy_text_and_cut_a_sampled_one(name):
    value = {"temperature": 0.2, "top_k": 1, "epsilon_cutoff": 0.9, "eta_cutoff": 0.9, "min_p": 1.0}.get(name, 1e-6)
    if name not in vars(GenerationConfig()):
        pytest.skip(f"this version of transformers has no {name}: one that has it ends this skip")
    model = model_with(**{name: value})
    greedy = full_depth_generate(model_with(), PROMPT, NEW).sequences
    assert torch.equal(speculative_generate(model, PROMPT, NEW).sequences, greedy)
    if name in {"temperature", "eta_cutoff"}:
        return  # the caller's own wins; the other depends on the entropy
    texts = [
        way(model, PROMPT, NEW, temperature=1.0, generator=torch.Generator().manual_seed(seed)).sequences.tolist()
        for way in (full_depth_generate, speculative_generate)
        for seed in (0, 1)
    ]
    assert texts == texts[:1] * 4  # one token is left to draw


def test_sampled_speculation_follows_settings_that_read_the_text():
    model = model_with(no_repeat_ngram_size=1)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        text = speculative_generate(model, PROMPT, NEW, temperature=2.0, generator=generator).sequences[0].tolist()
        assert len(set(text[8:]) | set(text[:8])) == len(set(text[:8])) + NEW


def test_padding_that_cannot_be_told_from_text_is_said():
    model = model_with(eos_token_id=0, pad_token_id=0)
    rows = torch.tensor([[0, 0, 0, 5, 6, 7], [1, 2, 3, 4, 5, 6]])
    with pytest.warns(UserWarning, match="no attention_mask"):
        found = full_depth_generate(model, rows, NEW).sequences
    assert torch.equal(found, written_by_generate(model, rows))


def test_right_padding_and_masks_of_other_numbers_are_refused():
    rows = torch.tensor([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]])
    with pytest.raises(InputError, match=r"the mask that pad_token_id makes.*pad on the left"):
        full_depth_generate(model_with(pad_token_id=0), rows, 4)
    with pytest.raises(InputError, match="the mask hides"):
        full_depth_generate(model_with(), rows, 4, attention_mask=(rows != 0).long())
    with pytest.raises(InputError, match="other values than 0"):
        full_depth_generate(model_with(), rows, 4, attention_mask=torch.full((2, 5), -1.0))


@pytest.mark.parametrize("shape", [{}, {"position_embedding": "rope"}])
@pytest.mark.parametrize("way", WAYS)
def test_text_under_autocast_is_that_of_generate(way, shape):
    torch.manual_seed(0)
    model = tiny_model(**shape)
    with torch.autocast("cpu", torch.bfloat16):
        want = model.generate(PROMPT, max_new_tokens=NEW)
        assert torch.equal(WAYS[way](model, PROMPT, NEW).sequences, want)


def test_a_model_in_something_is_decoded_and_others_are_refused():
    model = model_with()
    want = full_depth_generate(model, PROMPT, 4).sequences
    assert torch.equal(speculative_generate(torch.compile(model, backend="eager"), PROMPT, 4).sequences, want)
    with pytest.raises(InputError, match=r"give its `\.module`"):
        speculative_generate(torch.nn.DataParallel(model), PROMPT, 4)
    with pytest.raises(InputError, match="not a looped model"):
        full_depth_generate(torch.nn.Linear(2, 2), PROMPT, 4)
