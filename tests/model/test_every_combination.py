"""Models drawn from all that a configuration allows: however they are computed, they are one function.

A few draws in the suite; LOOPSCALE_EXAMPLES=300 makes as many of each.
"""

import os
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from loopscale import InputError
from loopscale.decode import early_exit_generate, full_depth_generate, shared_cache, speculative_generate
from loopscale.model.parts import SLOTS
from tests.decode.test_early_exit import Restless, exits_of
from tests.helpers import tiny_model

IDS = torch.arange(24).view(2, 12) * 7 % 31
EXAMPLES = int(os.environ.get("LOOPSCALE_EXAMPLES", "0"))
FIELDS = {
    **{slot: st.sampled_from(sorted(parts)) for slot, parts in SLOTS.items()},
    "num_prelude_layers": st.sampled_from([0, 1, 2]),
    "num_coda_layers": st.sampled_from([0, 1, 2]),
    "initial_state": st.sampled_from(["embedded", "zeros", "noise"]),
    "position_embedding": st.sampled_from(["learned", "rope"]),
    "block_norm": st.sampled_from(["rmsnorm", "layernorm"]),
    "num_key_value_heads": st.sampled_from([1, 2]),
    "head_dim": st.sampled_from([8, 10]),
    "qk_norm": st.booleans(),
    "attention_bias": st.booleans(),
    "value_embeddings": st.booleans(),
    "prelude_norm": st.booleans(),
    "embedding_scale": st.sampled_from([1.0, 3.0]),
    "mlp": st.sampled_from(["swiglu", "gelu", "gelu_tanh", "relu2"]),
    "supervision": st.sampled_from(["terminal", "per_loop", "exit_gate"]),
    "tie_word_embeddings": st.booleans(),
}
MODELS = st.fixed_dictionaries(FIELDS)


def drawn(few: int):
    """Return the settings of a test of so many draws."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=EXAMPLES or few,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=slow,
        phases=[Phase.generate],
    )


def built(fields):
    """Return the model, in float64, whose weights are no longer those that some parts are the identity at."""
    assume(fields["initial_state"] == "embedded" or fields["injection"] != "none")
    assume(fields["num_coda_layers"] or fields["coda_input"] == "state")
    torch.manual_seed(0)
    model = tiny_model(**fields).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@drawn(4)
@given(MODELS, st.sampled_from([1, 2, 3, 5]))
def test_loops_with_shared_weights_are_tied_copies(fields, loops):
    """Losses and gradients, of kept as of checkpointed loops, are those of a loop without any sharing."""
    model = built(fields).train()
    loss, expected = naive(model, loops)
    for model.checkpoint_loops in (False, True):
        model.zero_grad()
        out = model(IDS, labels=IDS, num_loops=loops)
        out.loss.backward()
        torch.testing.assert_close(out.loss, loss)
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradient, expected[name], msg=name)


def naive(model, loops):
    """Return the loss of as many copies of a model as it has loops, one per loop, and the sum of their gradients."""
    copies = [deepcopy(model) for _ in range(loops)]
    context = copies[0].model.context(IDS)
    h, exits, gates = copies[0].embed(IDS, context), [], []
    for k, own in enumerate(copies):

        def stack(x, own=own):
            x = own.model.injection(x, context)
            for layer in own.model.layers:
                x, _ = layer(x, 0, context)
            return x

        z = own.model.relaxation(h, stack, k, context)
        last = k + 1 == loops
        x = z
        if own.config.num_coda_layers:
            x = own.coda_input(z, lambda y, own=own, k=k, last=last: own.readout_norm(y, k, last))
            for layer in own.model.coda:
                x, _ = layer(x, 0, context)
        logits = own.lm_head(own.readout_norm(x, k, last))
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].mT, IDS[:, 1:], reduction="none")
        exits.append(torch.nn.functional.pad(losses, (0, 1)))
        carried = own.model.recurrence(z, h, k, context)
        if own.exit_gate is not None:
            gates.append(own.exit_gate(carried).squeeze(-1).sigmoid())
        h = carried
    mask = torch.ones_like(IDS, dtype=torch.bool)
    mask[:, -1] = False
    loss = model.supervision.loss(torch.stack(exits), torch.stack(gates) if gates else None, mask, 22)
    loss.backward()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for own in copies:
        for name, parameter in own.named_parameters():
            total[name] += 0 if parameter.grad is None else parameter.grad
    return loss.detach(), total


@pytest.mark.filterwarnings("ignore:exit . was not trained")
@drawn(5)
@given(MODELS, st.sampled_from([1, 2, 4]))
def test_every_way_to_decode_writes_one_text(fields, loops):
    check_decoding(built(fields), loops)


def check_decoding(model, loops):
    """Assert that all exact ways to decode a model, at that depth and its own, write one text."""
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), IDS[:1, :8]], 1)
    batch = torch.cat([IDS[1:], padded])
    mask = torch.ones_like(batch)
    mask[1, :4] = 0
    asked = {"attention_mask": mask, "max_new_tokens": 6, "pad_token_id": 0}
    greedy = {**asked, "do_sample": False}
    for depth in (loops, None):
        cached = model.generate(batch, num_loops=depth, **greedy)
        assert torch.equal(cached, model.generate(batch, num_loops=depth, use_cache=False, **greedy))
        static = model.generate(batch, num_loops=depth, cache_implementation="static", **greedy)
        assert torch.equal(cached, static)
        assert torch.equal(cached, full_depth_generate(model, batch, num_loops=depth, **asked).sequences)
        if depth != 1 and any(part.reads_loop for part in model.model.loop_parts.values()):
            with pytest.raises(InputError, match="something else in every loop"):
                speculative_generate(model, batch, num_loops=depth, **asked)
        elif depth != 1:
            assert torch.equal(cached, speculative_generate(model, batch, num_loops=depth, **asked).sequences)
    lone = model.generate(IDS[:1, :8], max_new_tokens=6, do_sample=False)
    assert torch.equal(cached[1:, 4:], lone)
    assert torch.equal(model.generate(batch, cache=shared_cache(model, 1), **greedy), cached)
    sampled = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        sampled.append(model.generate(batch, do_sample=True, top_k=0, use_cache=use_cache, **asked))
    assert torch.equal(*sampled)
    left = early_exit_generate(model, IDS[:1, :8], 6, Restless()).sequences
    with torch.no_grad():
        tokens, _ = exits_of(model, left, Restless())
    assert torch.equal(left[:, 9:], tokens[:, 8:-1])  # the first comes with the prompt, at full depth
