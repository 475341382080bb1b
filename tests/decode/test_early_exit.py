"""Early exit: each token leaves where the rule says, and what it leaves in the deeper slots is as promised."""

from dataclasses import dataclass

import pytest
import torch

from loopscale import InputError
from loopscale.decode import early_exit_generate
from tests.helpers import tiny_model

PAD, NEW = 30, 10


@dataclass
class Confident:
    """Leave where the largest probability reaches a threshold."""

    threshold: float

    def watch(self, model):
        return lambda k, z, logits: logits().softmax(-1).amax(-1) >= self.threshold


class Restless:
    """Leave by a digit of the state: depths that jump about, without reading logits."""

    def watch(self, model):
        return lambda k, z, logits: (z[..., 0] * 1e3).long() % 3 == 0


class Never:
    def watch(self, model):
        return lambda k, z, logits: torch.zeros(z.shape[:2], dtype=torch.bool)


class AtOnce:
    def watch(self, model):
        return lambda k, z, logits: torch.ones(z.shape[:2], dtype=torch.bool)


SHAPES = {"learned": {}, "rope": {"position_embedding": "rope"}, "normed": {"recurrence": "rmsnorm"}}
SHAPES["reads k, h and e"] = {"recurrence": "mixing", "injection": "add", "readout": {"kind": "power"}}

SHAPES["a prelude"] = {"num_prelude_layers": 2, "injection": "linear", "initial_state": "noise"}
SHAPES["a prelude read once"] = {"num_prelude_layers": 1, "position_embedding": "rope"}
SHAPES["a coda"] = {"num_prelude_layers": 1, "num_coda_layers": 2, "injection": "linear", "coda_input": "readout"}


def one_prompt():
    return torch.randint(0, PAD, (1, 5))


@torch.no_grad()
def exits_of(model, ids, rule):
    """Every position's token and exit by the rule, all states computed at full depth."""
    states, context = model(ids, output_states=True).states, model.context(ids)
    watch = rule.watch(model)
    tokens = torch.full(ids.shape, -1)
    depth = torch.zeros_like(ids)
    for k, z in enumerate(states):
        logits = model.readout(z, k, context)
        leaves = (depth == 0) & (watch(k, z, lambda logits=logits: logits) | (k + 1 == len(states)))
        tokens[leaves], depth[leaves] = logits.argmax(-1)[leaves], k + 1
    return tokens, depth


@pytest.mark.usefixtures("mechanisms")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", [Confident(0.3), Restless()], ids=["confident", "restless"])
def test_recompute_is_exact(shape, rule):
    """The text is the one in which every token goes on to full depth after its exit was read."""
    model = tiny_model(**SHAPES[shape], vocab_size=31).double()
    model.lm_head.weight.data *= 0.5
    depths = set()
    for _ in range(4):
        ids = one_prompt()
        out = early_exit_generate(model, ids, NEW, rule)
        tokens, depth = exits_of(model, out.sequences, rule)
        assert torch.equal(out.sequences[:, 6:], tokens[:, 5:-1])
        depths |= set(depth[0, 5:-1].tolist())
    if isinstance(rule, Restless):
        assert depths == {1, 2, 3}


def test_a_rule_that_never_lets_go_is_full_depth():
    model, ids = tiny_model(), torch.randint(0, PAD, (2, 5))
    for slots in ("recompute", "share_last"):
        out = early_exit_generate(model, ids, NEW, Never(), exit_slots=slots)
        assert torch.equal(out.sequences, model.generate(ids, max_new_tokens=NEW, do_sample=False))
        assert out.stats.loops_per_token == 3


def test_leaving_at_once_runs_one_loop_per_token():
    model, ids = tiny_model(), one_prompt()
    for slots in ("recompute", "share_last"):
        stats = early_exit_generate(model, ids, NEW, AtOnce(), exit_slots=slots).stats
        assert (stats.loops_per_token, stats.passes_per_token) == (1, 1)


def test_shared_slots_hold_what_the_last_loop_wrote():
    """Attention of the deeper loops then sees copies: the same as a model whose slots were filled by hand."""
    model, ids = tiny_model().double(), one_prompt()
    exact = early_exit_generate(model, ids, NEW, Restless()).sequences
    shared = early_exit_generate(model, ids, NEW, Restless(), exit_slots="share_last").sequences
    assert torch.equal(exact[:, :6], shared[:, :6])  # the prompt runs at full depth in both
    model.model.layers[1].self_attn.o_proj.weight.data.zero_()
    model.model.layers[0].self_attn.o_proj.weight.data.zero_()
    exact = early_exit_generate(model, ids, NEW, Restless()).sequences
    shared = early_exit_generate(model, ids, NEW, Restless(), exit_slots="share_last").sequences
    assert torch.equal(exact, shared)  # without attention nobody reads the slots


def test_every_row_of_a_batch_is_written_from_its_own_exit():
    model = tiny_model().double()
    ids, mask = torch.randint(0, PAD, (3, 6)), torch.ones(3, 6, dtype=torch.long)
    ids[1, :2], mask[1, :2], ids[2, :5], mask[2, :5] = PAD, 0, PAD, 0
    together = early_exit_generate(model, ids, NEW, Restless(), attention_mask=mask).sequences
    for row in range(3):
        alone = early_exit_generate(model, ids[row : row + 1, mask[row].bool()], NEW, Restless()).sequences
        assert torch.equal(together[row, -NEW:], alone[0, -NEW:])


def test_sampling_repeats_with_the_seed():
    model, ids = tiny_model(), one_prompt()
    texts = [
        early_exit_generate(
            model, ids, NEW, Confident(0.5), temperature=1.0, generator=torch.Generator().manual_seed(s)
        ).sequences
        for s in (0, 0, 1)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exit_slots": "share"}, "did you mean 'share_last'"),
        ({"num_loops": 0}, "num_loops is 0"),
        ({"top_k": 3}, "give a temperature"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "prompt is empty"),
        ({"max_new_tokens": 45}, "need 49 positions"),
    ],
)
def test_bad_input_is_named(options, words):
    with pytest.raises(InputError, match=words):
        early_exit_generate(
            tiny_model(), **{"input_ids": one_prompt(), "max_new_tokens": NEW, "rule": Never(), **options}
        )
