"""What every model of transformers gives on request, and outputs whose rows never mix."""

import logging
import warnings

import pytest
import torch
from transformers import DynamicCache
from transformers.utils.generic import find_labels

from loopscale import LoopedForCausalLM
from loopscale.hf import CACHE
from tests.helpers import tiny_config, tiny_model

IDS = torch.arange(24).view(2, 12) % 31


def eager_model(**overrides):
    return LoopedForCausalLM._from_config(tiny_config(**overrides), attn_implementation="eager").eval()


@pytest.mark.parametrize("readout", ["raw", "rmsnorm", "final_rmsnorm"])
@pytest.mark.parametrize("loops", [1, 3, 5])
def test_hidden_states_are_the_embedding_and_every_layer_of_every_loop(readout, loops):
    model = tiny_model(readout=readout, recurrence="damped")
    out = model(IDS, output_hidden_states=True, output_states=True, num_loops=loops)
    assert len(out.hidden_states) == 2 * loops + 1
    torch.testing.assert_close(out.hidden_states[0], model.embed(IDS))
    for k in range(loops - 1):
        torch.testing.assert_close(out.hidden_states[2 * (k + 1)], out.states[k])
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)
    assert model(IDS).hidden_states is None


def test_attention_maps_are_one_per_layer_and_loop():
    model = eager_model(num_key_value_heads=1)
    out = model(IDS, output_attentions=True, num_loops=2)
    assert [a.shape for a in out.attentions] == [(2, 2, 12, 12)] * 4
    for a in out.attentions:
        torch.testing.assert_close(a.sum(-1), torch.ones(2, 2, 12))
        assert not a.triu(1).any()


def test_the_configuration_can_ask_for_both():
    model = eager_model(output_hidden_states=True)
    model.config.output_attentions = True
    out = model(IDS)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1 == 7 and len(out.attentions) == 6
    as_tuple = model(IDS, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], out.logits)


def test_attention_without_maps_is_said(caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        out = tiny_model()(IDS, output_attentions=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert not out.attentions and "attn_implementation='eager'" in caplog.text


def test_hidden_states_have_gradients_and_survive_recomputation():
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        model = tiny_model().train()
        model.checkpoint_loops = checkpointed
        out = model(IDS, labels=IDS, output_hidden_states=True)
        assert len(out.hidden_states) == 7
        out.hidden_states[0].retain_grad()
        out.loss.backward()
        gradients.append(out.hidden_states[0].grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def test_hidden_states_can_be_selected():
    model = tiny_model()
    every = model(IDS, output_hidden_states=True).hidden_states
    for selected, kept in ((-1, [6]), ([0, -2, 99], [0, 5])):
        found = model(IDS, output_hidden_states=selected).hidden_states
        assert [i for i, h in enumerate(found) if h is not None] == kept and len(found) == 7
        for i in kept:
            torch.testing.assert_close(found[i], every[i])


def test_generate_hands_on_hidden_states_and_attentions():
    out = eager_model().generate(
        IDS[:1],
        max_new_tokens=3,
        do_sample=False,
        output_hidden_states=True,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    assert [len(step) for step in out.hidden_states] == [7] * 3 and [len(step) for step in out.attentions] == [6] * 3


@pytest.mark.parametrize("overrides", [{}, {"supervision": "exit_gate"}])
def test_rows_come_first_and_do_not_mix(overrides):
    model = tiny_model(**overrides).double()
    labels = IDS.clone()
    labels[0, 6:] = -100
    mask = torch.ones_like(IDS)
    mask[1, :4] = 0
    both = model(IDS, attention_mask=mask, labels=labels, output_hidden_states=True, output_states=True)
    for row in range(2):
        one = slice(row, row + 1)
        alone = model(
            IDS[one], attention_mask=mask[one], labels=labels[one], output_hidden_states=True, output_states=True
        )
        for name, value in alone.items():
            if name in {"loss", CACHE}:
                continue
            for mine, theirs in zip(*(x if isinstance(x, tuple) else (x,) for x in (value, both[name])), strict=True):
                torch.testing.assert_close(mine, theirs[one], equal_nan=True)


def test_norms_are_those_of_real_tokens():
    model = tiny_model()
    mask = torch.ones(1, 12, dtype=torch.long)
    mask[0, :5] = 0
    padded = model(IDS[:1], attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0))
    torch.testing.assert_close(padded.loop_norms, model(IDS[:1, 5:]).loop_norms)


def test_stock_trainers_find_one_label():
    assert find_labels(LoopedForCausalLM) == ["labels"]


def test_a_training_step_has_logits_as_everywhere():
    out = tiny_model().train()(IDS, labels=IDS)
    assert out.logits.shape == (2, 12, 31)


FORMER = pytest.mark.skipif(CACHE != "cache", reason="before transformers 5.24 past_key_values is the only name")


@FORMER
@pytest.mark.parametrize("action", ["ignore", "default"])
def test_the_former_name_of_the_cache_is_told_once_whatever_is_ignored(action):
    model = tiny_model()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter(action)
        for _ in range(2):
            out = model(IDS, past_key_values=DynamicCache(config=model.config))
    assert out.cache.get_seq_length() == 12
    assert [w.category for w in said] == [FutureWarning] and "past_key_values" in str(said[0].message)


@FORMER
def test_the_former_name_of_the_cache_is_an_error_where_warnings_are():
    model = tiny_model()
    with pytest.raises(FutureWarning, match="past_key_values"):
        model(IDS, past_key_values=DynamicCache(config=model.config))


def test_a_cache_is_made_where_the_configuration_says_so_but_not_in_training():
    model = tiny_model()
    assert model(IDS)[CACHE].get_seq_length() == 12
    assert CACHE not in model(IDS, use_cache=False) and CACHE not in model.train()(IDS)
    assert CACHE not in tiny_model(use_cache=False)(IDS)
