import pytest
import torch

from loopscale import InputError
from loopscale.adapters import stream_plainly
from tests.adapters.toy_loop import VOCAB, ToyLoop
from tests.helpers import tiny_model


@pytest.mark.parametrize("num_loops", [None, 1, 4])
def test_the_text_is_that_of_generate(num_loops):
    model, prompt = tiny_model(readout="raw"), torch.randint(0, 31, (3, 5))
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, num_loops=num_loops
    )
    assert torch.equal(torch.stack(list(stream_plainly(model, prompt, 8, num_loops)), 1), expected[:, 5:])


def test_an_adapter_writes_what_its_whole_model_does():
    toy, text = ToyLoop().eval(), torch.randint(0, VOCAB, (2, 4))
    for tokens in stream_plainly(toy, text, 6):
        assert torch.equal(tokens, toy.model(text, toy.num_loops)[:, -1].argmax(-1))
        text = torch.cat([text, tokens[:, None]], 1)
    assert text.shape == (2, 10)


def test_ended_rows_wait_for_the_others():
    model, prompt = tiny_model(), torch.randint(0, 31, (2, 3))
    free = torch.stack(list(stream_plainly(model, prompt, 10)), 1)
    eos = int(free[0, 2])
    out = torch.stack(list(stream_plainly(model, prompt, 10, eos_token_id=eos)), 1)
    first = (free == eos).int().argmax(1)
    assert (out[0, first[0] :] == eos).all()
    assert torch.equal(out[0, : first[0] + 1], free[0, : first[0] + 1])
    assert out.shape[1] == (10 if not (free[1] == eos).any() else int(first.max()) + 1)


@pytest.mark.parametrize(("prompt", "new", "loops"), [((1, 0), 3, 2), ((1, 2), 0, 2), ((1, 2), 3, 0)])
def test_nothing_to_do_is_told(prompt, new, loops):
    with pytest.raises(InputError):
        next(stream_plainly(tiny_model(), torch.zeros(prompt, dtype=torch.long), new, loops))
