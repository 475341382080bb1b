"""Full-depth decoding with contrasted exits, against plain verbs without a cache."""

import pytest
import torch

from loopscale import InputError
from loopscale.decode import Contrast, early_exit_generate, full_depth_generate, speculative_generate
from tests.decode.test_early_exit import AtOnce
from tests.helpers import tiny_model

NEW = 8
MODELS = {
    "plain": {},
    "rope and gate": {"position_embedding": "rope", "recurrence": "gated"},
    "prelude, injection, coda": {"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear"},
    "the exits differ": {"readout": "final_rmsnorm"},
}


def plainly(model, ids, contrast, num_loops, choose):
    """Write token by token with the whole text run anew for each."""
    for _ in range(NEW):
        context = model.context(ids)
        h, logits = model.embed(ids, context), []
        for k in range(num_loops):
            z = model.step(h, k, context)
            logits.append(model.readout(z, k, context)[:, -1])
            h = model.carry(z, k, context, h)
        ids = torch.cat([ids, choose(logits[-1] - contrast.share * logits[contrast.loop - 1])], 1)
    return ids


@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(("loop", "num_loops"), [(1, 3), (2, 5)])
@torch.no_grad()
def test_tokens_are_those_of_the_difference_of_two_exits(fields, loop, num_loops):
    torch.manual_seed(0)
    model, contrast = tiny_model(**fields).double(), Contrast(0.7, loop)
    ids = torch.randint(0, 30, (2, 5))
    found = full_depth_generate(model, ids, NEW, contrast=contrast, num_loops=num_loops).sequences
    expected = plainly(model, ids, contrast, num_loops, lambda logits: logits.argmax(-1, keepdim=True))
    assert torch.equal(found, expected)
    assert not torch.equal(found, full_depth_generate(model, ids, NEW, num_loops=num_loops).sequences)


@torch.no_grad()
def test_samples_are_drawn_from_it():
    torch.manual_seed(0)
    model, contrast, ids = tiny_model().double(), Contrast(0.5), torch.randint(0, 30, (1, 5))
    options = {"temperature": 0.5, "generator": torch.Generator().manual_seed(1)}
    found = full_depth_generate(model, ids, NEW, contrast=contrast, **options).sequences
    generator = torch.Generator().manual_seed(1)

    def draw(logits):
        return torch.multinomial((logits / 0.5).softmax(-1), 1, generator=generator)

    assert torch.equal(found, plainly(model, ids, contrast, 3, draw))


def test_padded_rows_are_written_as_bare_ones():
    torch.manual_seed(0)
    model, contrast = tiny_model().double(), Contrast(0.7)
    ids = torch.randint(0, 30, (2, 6))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    both = full_depth_generate(model, ids, NEW, contrast=contrast, attention_mask=mask).sequences
    bare = full_depth_generate(model, ids[1:, 3:], NEW, contrast=contrast).sequences
    assert torch.equal(both[1, 3:], bare[0])


def test_what_the_last_exit_forbids_stays_forbidden():
    last, earlier = torch.tensor([[-torch.inf, 1.0]]), torch.tensor([[-torch.inf, 0.5]])
    assert Contrast(1.0)(last, earlier).tolist() == [[-torch.inf, 0.5]]


@pytest.mark.parametrize(
    ("share", "loop", "words"),
    [
        (0.0, 1, "share of the contrast is 0.0"),
        (1.5, 1, "is 1.5"),
        (0.5, 0, "loops count from 1"),
        (0.5, 3, "loop 3 of 3"),
    ],
)
def test_what_cannot_be_contrasted_is_told(share, loop, words):
    with pytest.raises(InputError, match=words):
        full_depth_generate(tiny_model(), torch.ones(1, 3, dtype=torch.long), 2, contrast=Contrast(share, loop))


def test_an_exit_that_was_not_trained_is_told():
    with pytest.warns(UserWarning, match=r"exit 1 was not trained \(terminal supervision of 3 loops\)"):
        full_depth_generate(
            tiny_model(supervision="terminal"), torch.ones(1, 3, dtype=torch.long), 2, contrast=Contrast(0.5)
        )


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (speculative_generate, "self-speculation confirms drafts by the last alone"),
        (lambda *args, **options: early_exit_generate(*args, rule=AtOnce(), **options), "early exit may leave before"),
    ],
)
def test_other_decoders_refuse_a_contrast(write, words):
    with pytest.raises(InputError, match=words):
        write(tiny_model(), torch.ones(1, 3, dtype=torch.long), 2, contrast=Contrast(0.5))
