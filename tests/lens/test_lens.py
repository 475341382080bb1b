import base64
import json
import re

import numpy as np
import pytest
import torch

from loopscale.errors import InputError
from loopscale.lens import look, render, write_page
from loopscale.state import angular_step, scale
from tests.helpers import tiny_model

HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\u202egnp", "\x1b[31m", " ", "\n"]


class Letters:
    """A tokenizer as small as a tokenizer can be; ids above 25 are beyond it."""

    def decode(self, ids):
        return [*HOSTILE, *"abcdefghijklmnopqrst"][ids[0]]

    def convert_ids_to_tokens(self, token):
        return self.decode([token])


class FourFunctions:
    """A model of somebody else."""

    num_loops = 3

    def embed(self, ids):
        return torch.nn.functional.one_hot(ids, 26).float()

    def step(self, h, k):
        return h + 0.1 * h.roll(1, -1)

    def carry(self, z, k):
        return z

    def readout(self, z, k):
        return z * (k + 1)


def test_its_figures_are_those_of_the_model():
    model, ids = tiny_model(readout="raw"), torch.arange(20)
    seen = look(model, ids, Letters())
    context = model.context(ids[None])
    h, before = model.embed(ids[None], context), None
    for k in range(3):
        z = model.step(h, k, context)
        share = model.readout(z, k, context)[0].softmax(-1)
        best = share.topk(5)
        assert torch.allclose(seen.probability[:, k], best.values, atol=1e-6)
        names = [Letters().decode([i]) if i < 26 else f"⟨{i}⟩" for i in best.indices[:, 0].tolist()]
        shown = [seen.pieces[i] for i in seen.top[:, k, 0]]
        assert [a for a, b in zip(shown, names, strict=True) if b.isalpha() and a != b] == []
        assert torch.allclose(seen.surprise[:-1, k], -share[range(19), ids[1:]].log(), atol=1e-5)
        assert torch.allclose(seen.scale[:, k], scale(z)[0])
        if before is not None:
            assert torch.allclose(seen.angular_step[:, k - 1], angular_step(before, z)[0])
        before, h = z, model.carry(z, k, context, h)
    assert seen.surprise[-1].isnan().all() and not seen.surprise[:-1].isnan().any()
    for t in range(20):
        settled = int(seen.settles[t])
        first = seen.top[t, :, 0]
        assert (first[settled - 1 :] == first[-1]).all() and (settled == 1 or first[settled - 2] != first[-1])


def test_a_model_of_four_functions_is_looked_at_at_any_depth():
    seen = look(FourFunctions(), torch.arange(10), Letters(), loops=5)
    assert seen.loops == 5 and seen.angular_step.shape == (10, 4)
    assert look(FourFunctions(), torch.arange(1), Letters(), loops=1).angular_step.shape == (1, 0)


def test_a_long_text_is_read_in_windows_that_see_half_a_window():
    model = tiny_model(max_position_embeddings=16)
    ids = torch.randint(0, 26, (45,))
    seen = look(model, ids, Letters())
    assert seen.context == 8 and len(seen.tokens) == 45
    first, last = look(model, ids[:16], Letters()), look(model, ids[-16:], Letters())
    assert torch.allclose(seen.scale[:16], first.scale, atol=1e-6)
    assert torch.allclose(seen.surprise[-5:-1], last.surprise[-5:-1], atol=1e-5)
    assert not seen.surprise[:-1].isnan().any()


@pytest.mark.parametrize(
    ("ids", "options", "said"),
    [
        ([], {}, "empty"),
        ([1, 2], {"loops": 0}, "1 loop or more"),
        ([1, 2], {"window": 1}, "2 to 48 tokens"),
        ([1, 2], {"window": 99}, "2 to 48 tokens"),
        ([1, 31], {}, "a token of the text is 31, and the model has 31"),
        ([-1, 3], {}, "a token of the text is -1"),
        ([[1, 2], [3, 4]], {}, "of one text"),
    ],
)
def test_bad_input_is_told(ids, options, said):
    with pytest.raises(InputError, match=said):
        look(tiny_model(), torch.tensor(ids, dtype=torch.long), Letters(), **options)


def test_tokens_come_as_they_are_had():
    model, ids = tiny_model(), torch.arange(6)
    seen = [look(model, given, Letters()).tokens for given in (ids, ids[None], ids.int(), ids.tolist())]
    assert all(torch.equal(tokens, seen[0]) for tokens in seen)


def test_what_is_no_number_or_no_exit_is_told():
    class Broken(FourFunctions):
        def step(self, h, k):
            return h / (1 - k)

    class Short(FourFunctions):
        def readout(self, z, k):
            return z[:, -1]

    with pytest.raises(InputError, match="state after loop 2, or the sum of its squares, is not finite"):
        look(Broken(), torch.arange(4), Letters())
    with pytest.raises(InputError, match="readout returned"):
        look(Short(), torch.arange(4), Letters())


@pytest.fixture(scope="module")
def page():
    torch.manual_seed(0)
    seen = look(tiny_model(), torch.arange(24), Letters())
    return seen, render(seen, "</title><script>alert(3)</script>")


def test_the_page_holds_the_figures(page):
    seen, html = page
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1))
    assert tuple(data["pieces"]) == seen.pieces
    values = np.frombuffer(base64.b64decode(data["probability"]), "<f4").reshape(seen.probability.shape)
    assert np.array_equal(values, seen.probability.numpy())


def test_hostile_text_is_inert_and_nothing_is_asked_for(page):
    seen, html = page
    assert html.count("<script") == 2 and html.count("</script>") == 2 and "<img" not in html
    assert "\u202e" not in html and "\x1b" not in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert any("\\x1b" in piece for piece in seen.pieces) and "⏎" in seen.pieces


def test_a_page_that_cannot_be_written_is_told(page, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_page(page[0], tmp_path / "file" / "lens.html")
