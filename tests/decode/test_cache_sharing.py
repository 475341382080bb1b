"""Sharing the cache of the last loops."""

import pytest
import torch
from torch.nn import DataParallel

from loopscale import InputError
from loopscale.decode import shared_cache
from loopscale.model import CACHE
from tests.helpers import tiny_model

NEW = 8


def generate(model, ids, cache=None, **options):
    torch.manual_seed(1)
    return model.generate(ids, max_new_tokens=NEW, **{CACHE: cache, "do_sample": False, **options})


def test_sharing_nothing_is_the_full_cache():
    model, ids = tiny_model(), torch.randint(0, 30, (2, 5))
    assert torch.equal(generate(model, ids, shared_cache(model, 1)), generate(model, ids))


@pytest.mark.parametrize("share", [2, 3])
def test_the_shared_slot_is_what_the_last_loop_wrote(share):
    model, ids = tiny_model(), torch.randint(0, 30, (1, 7))
    full, shared = model(ids, use_cache=True)[CACHE], shared_cache(model, share)
    model(ids, cache=shared)
    last = [layer.keys for layer in full.layers[-2:]]
    for i, layer in enumerate(shared.layers[(3 - share) * 2 : (3 - share) * 2 + 2]):
        assert torch.equal(layer.keys, last[i])
    kept = sum(layer.keys.numel() for layer in shared.layers if layer.is_initialized)
    assert kept * 3 == sum(layer.keys.numel() for layer in full.layers) * (4 - share)


def test_the_next_token_attends_to_its_own_keys_and_the_last_loop_of_the_past():
    """Written out by hand: every sharing loop sees past keys of the last loop and this loop's key of the new token."""
    model, ids = tiny_model(num_stack_layers=1, num_loops=2), torch.randint(0, 30, (1, 4))
    full, shared = model(ids, use_cache=True)[CACHE], shared_cache(model, 2)
    model(ids, cache=shared)
    token = torch.tensor([[7]])
    full.layers[0].keys, full.layers[0].values = full.layers[1].keys.clone(), full.layers[1].values.clone()
    torch.testing.assert_close(model(token, cache=shared).logits, model(token, cache=full).logits)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_beams_and_samples_run_on_it(options):
    model, ids = tiny_model(), torch.randint(0, 30, (2, 5))
    out = generate(model, ids, shared_cache(model, 2), **options)
    assert out.shape[1] == 5 + NEW
    assert torch.equal(generate(model, ids, shared_cache(model, 1), **options), generate(model, ids, **options))


@pytest.mark.parametrize("share", [0, 4])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(InputError, match=f"share_last is {share}"):
        shared_cache(tiny_model(), share)


def test_a_model_of_another_kind_is_told():
    with pytest.raises(InputError, match=r"`\.module`"):
        shared_cache(DataParallel(tiny_model()), 2)
