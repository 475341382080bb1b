"""Self-speculation writes the text of full depth, whatever the drafts are worth."""

import warnings
from itertools import product

import pytest
import torch
from transformers import TextStreamer
from transformers.generation.streamers import BaseStreamer

from loopscale import InputError
from loopscale.decode import speculative_generate
from loopscale.decode.request import read_request
from loopscale.decode.sampling import Greedy
from tests.helpers import tiny_model

PAD = 30
NEW = 8
SHAPES = {
    "learned": {},
    "rope": {"position_embedding": "rope"},
    "gqa": {"position_embedding": "rope", "num_attention_heads": 4, "num_key_value_heads": 2},
    "sandwich": {"norm_placement": "sandwich", "block_norm": "layernorm"},
    "a prelude": {"num_prelude_layers": 2, "injection": "linear", "initial_state": "noise"},
    "a prelude read once": {"num_prelude_layers": 1, "position_embedding": "rope"},
    "a coda": {"num_prelude_layers": 1, "num_coda_layers": 2, "injection": "diagonal", "coda_input": "readout"},
    "a coda that reads the last exit otherwise": {"num_coda_layers": 1, "readout": "final_rmsnorm"},
    "reads h and e": {"recurrence": "holding", "injection": "add", "readout": {"kind": "power", "alpha": 0.7}},
}


def prompts(pads=(0, 3, 6, 1), width=7):
    ids = torch.randint(0, PAD, (len(pads), width))
    mask = torch.ones_like(ids)
    for row, n in enumerate(pads):
        ids[row, :n], mask[row, :n] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def plain(model, inputs, **options):
    return model.generate(**inputs, max_new_tokens=NEW, do_sample=False, pad_token_id=PAD, **options)


def speculate(model, inputs, **options):
    return speculative_generate(model, **{"max_new_tokens": NEW, "pad_token_id": PAD, **inputs, **options})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("readout", "recurrence"),
    list(product(["rmsnorm", "layernorm", "raw", "final_rmsnorm"], ["residual", "rmsnorm", "damped"])),
)
def test_greedy_text_is_that_of_full_depth_for_every_readout_and_recurrence(readout, recurrence, dtype):
    model, inputs = tiny_model(readout=readout, recurrence=recurrence).to(dtype), prompts()
    for loops, draft_loops, ahead in ((None, 1, 16), (5, 1, 3), (5, 3, 2)):
        out = speculate(
            model, inputs, num_loops=loops, draft_loops=draft_loops, draft_tokens=ahead, adaptive=loops == 5
        )
        assert torch.equal(out.sequences, plain(model, inputs, num_loops=loops))


@pytest.mark.usefixtures("mechanisms")
@pytest.mark.parametrize(("shape", "attention"), [*((shape, "sdpa") for shape in SHAPES), ("gqa", "eager")])
def test_greedy_text_is_that_of_full_depth_for_every_shape(shape, attention):
    model = tiny_model(**SHAPES[shape])
    model.set_attn_implementation(attention)
    for inputs in (prompts(), prompts(pads=(2,)), prompts(pads=(0, 0), width=1)):
        expected = plain(model, inputs)
        for draft_tokens in (1, 20):
            out = speculate(model, inputs, draft_tokens=draft_tokens, adaptive=False)
            assert torch.equal(out.sequences, expected)


def test_rows_stop_at_their_own_end_of_sequence():
    model, inputs = tiny_model(), prompts()
    text = plain(model, inputs)[:, 7:]
    ends = [int(text[0, 3]), int(text[2, 5])]  # tokens that really occur, in the middle of a draft
    expected = plain(model, inputs, eos_token_id=ends)
    out = speculate(model, inputs, eos_token_id=ends, draft_tokens=4, adaptive=False)
    assert torch.equal(out.sequences, expected)
    assert out.stats.new_tokens < 4 * NEW


def agreeable_model(**options):
    """A model whose deeper loops change little, so that drafts are good."""
    model = tiny_model(**options)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data *= 0.05
        layer.mlp.down_proj.weight.data *= 0.05
    return model


@pytest.mark.parametrize("draft_loops", [1, 2, 3])
def test_a_token_that_stands_costs_the_passes_of_its_draft_alone(draft_loops):
    model, inputs = agreeable_model(num_loops=4), prompts(pads=(0,))
    stats = speculate(model, inputs, draft_loops=draft_loops, max_new_tokens=21, adaptive=False).stats
    assert stats.acceptance == 1
    assert (stats.verifications, stats.drafted) == (20, 19)  # the last token is never run, so never drafted
    assert stats.passes == 19 * draft_loops + 4  # the last but one runs through
    assert stats.passes_per_token < draft_loops + 0.2


@pytest.mark.parametrize("ahead", [1, 2])
def test_no_more_tokens_than_asked_for_are_ahead(ahead):
    model, inputs = agreeable_model(num_loops=4), prompts(pads=(0,))
    stats = speculate(model, inputs, draft_tokens=ahead, max_new_tokens=21, adaptive=False).stats
    assert stats.acceptance == 1
    assert stats.passes == pytest.approx(20 * 4 / (ahead + 1), abs=3)  # so many tokens share the passes of one


def test_rows_far_apart_stay_within_the_cache():
    """A row that is done waits where it is while the others go on drafting past it."""
    model, inputs = agreeable_model(), prompts(pads=(0, 1, 2, 3))
    model.readout_norm = _Negated(model.readout_norm, rows=slice(2, None), batch=4)  # two rows accept all, two nothing
    expected = model.generate(**inputs, max_new_tokens=30, do_sample=False, pad_token_id=PAD)
    out = speculate(model, inputs, max_new_tokens=30, draft_tokens=9, adaptive=False)
    assert torch.equal(out.sequences, expected)
    assert 0 < out.stats.acceptance < 0.6


def test_bad_drafts_cost_passes_and_change_nothing():
    model, inputs = tiny_model(), prompts(pads=(0,))
    model.readout_norm = _Negated(model.readout_norm)
    out = speculate(model, inputs, adaptive=False)
    assert torch.equal(out.sequences, plain(model, inputs))
    assert out.stats.accepted == 0
    assert out.stats.passes == (NEW - 1) * 3  # as many as without drafts


def test_an_exit_that_was_not_trained_is_not_asked(monkeypatch):
    asked = []
    judge = Greedy.judge
    monkeypatch.setattr(Greedy, "judge", lambda *args: asked.append(len(args[2])) or judge(*args))
    for weights, most in (([1.0, 1.0, 1.0, 1.0], 4), ([1.0, 0.0, 0.0, 1.0], 2)):
        asked.clear()
        model = agreeable_model(num_loops=4, loop_weights=weights)
        assert speculate(model, prompts(pads=(0,)), max_new_tokens=21, adaptive=False).stats.acceptance == 1
        assert max(asked) == most


def test_holding_back_saves_loops_and_costs_passes():
    model, inputs = tiny_model(num_loops=4), prompts(pads=(0,))
    model.readout_norm = _Negated(model.readout_norm)
    eager = speculate(model, inputs, max_new_tokens=30, adaptive=False)
    careful = speculate(model, inputs, max_new_tokens=30)
    assert torch.equal(eager.sequences, careful.sequences)
    assert careful.stats.token_loops < eager.stats.token_loops
    assert careful.stats.drafted < eager.stats.drafted


class _Negated(torch.nn.Module):
    """A readout whose early exits see the state negated in some rows, so that they draft badly."""

    reads_last, reads_loop = True, False

    def __init__(self, readout, rows=slice(None), batch=1):
        super().__init__()
        self.readout, self.rows, self.batch = readout, rows, batch

    def forward(self, z, k, last):
        x = self.readout(z, k, last)
        if last:
            return x
        x = x.clone()
        x.view(-1, self.batch, *x.shape[1:])[:, self.rows] *= -1
        return x


def test_no_loop_runs_twice_on_a_token_that_stands(monkeypatch):
    model, inputs = agreeable_model(num_loops=4), prompts(pads=(0,))
    rows = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda h, k, c=None: rows.append(len(h)) or step(h, k, c))
    stats = speculate(model, inputs, adaptive=False, max_new_tokens=21).stats
    assert sum(rows[4:]) == stats.token_loops == 20 * 4  # after the prompt's own four loops


def test_the_number_of_threads_is_what_it_was(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    speculate(tiny_model(), prompts())
    assert seen == [1, 3]


@pytest.mark.parametrize("pads", [(0,), (0, 3, 6, 1)], ids=["one", "batch"])
def test_near_ties_fall_as_in_plain_decoding(pads):
    """Every token has a twin whose logit differs by rounding alone: only single steps can tell them apart."""
    model, inputs = agreeable_model(vocab_size=32), prompts(pads)
    weight = model.lm_head.weight.data
    weight[16:] = weight[:16] * (1 + 2**-22)
    inputs["input_ids"] %= 16
    out = speculate(model, inputs, draft_tokens=4)
    assert torch.equal(out.sequences, plain(model, inputs))
    assert out.stats.rechecked >= len(pads) * NEW


def test_an_exact_tie_falls_to_the_same_token():
    model, inputs = agreeable_model(vocab_size=32), prompts(pads=(0,))
    model.lm_head.weight.data[16:] = model.lm_head.weight.data[:16]
    assert torch.equal(speculate(model, inputs).sequences, plain(model, inputs))


def test_bfloat16_text_is_that_of_full_depth():
    model, inputs = agreeable_model().bfloat16(), prompts()
    assert torch.equal(speculate(model, inputs, draft_tokens=4).sequences, plain(model, inputs))


def test_streaming_gives_every_token_once():
    class Collect(BaseStreamer):
        def __init__(self):
            self.tokens, self.ended = [], False

        def put(self, tokens):
            self.tokens += tokens.flatten().tolist()

        def end(self):
            self.ended = True

    streamer = Collect()
    out = speculate(agreeable_model(), prompts(pads=(0,)), streamer=streamer)
    assert streamer.tokens == out.sequences[0].tolist()
    assert streamer.ended


def test_the_sampled_text_is_that_of_full_depth_in_distribution(unchecked_shapes):
    """Three tokens of a vocabulary of five, 6,000 samples, against the exact probabilities: chi-square, seeded."""
    model = tiny_model(vocab_size=5, num_loops=4, hidden_size=8).double()
    model.lm_head.weight.data *= 0.2  # flat: every text is expected often enough for the test
    model.readout_norm = _Negated(model.readout_norm)
    n, temperature = 6000, 0.8
    prompt = torch.tensor([[1, 2]])
    texts = torch.cartesian_prod(*[torch.arange(5)] * 3)
    with torch.no_grad():
        logits = model(torch.cat([prompt.expand(125, 2), texts], 1)).logits[:, 1:4]
    exact = (logits / temperature).log_softmax(-1).gather(-1, texts[..., None]).sum((1, 2)).exp()
    for adaptive in (True, False):
        out = speculative_generate(
            model,
            prompt.expand(n, 2),
            max_new_tokens=3,
            draft_tokens=2,
            temperature=temperature,
            adaptive=adaptive,
            generator=torch.Generator().manual_seed(3),
        )
        assert 0.5 < out.stats.acceptance < 0.9  # both branches are at work
        counts = torch.bincount((out.sequences[:, 2:] * torch.tensor([25, 5, 1])).sum(1), minlength=125)
        chi2 = ((counts - n * exact) ** 2 / (n * exact)).sum()
        degrees, deviation = 124, (2 * 124) ** 0.5
        assert chi2 < degrees + 3.1 * deviation


def test_top_k_and_top_p_leave_out_what_they_should():
    model, inputs = tiny_model(), prompts(pads=(0,))
    greedy = plain(model, inputs)
    for options in ({"top_k": 1}, {"top_p": 1e-6}):
        generator = torch.Generator().manual_seed(0)
        out = speculate(model, inputs, temperature=1.5, generator=generator, **options)
        assert torch.equal(out.sequences, greedy)


def test_samples_repeat_with_the_seed():
    model, inputs = tiny_model(), prompts()
    texts = [
        speculate(model, inputs, temperature=1.0, generator=torch.Generator().manual_seed(s)).sequences
        for s in (0, 0, 1)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_an_untrained_drafting_exit_is_warned_of():
    model, inputs = tiny_model(supervision="terminal"), prompts()
    with pytest.warns(UserWarning, match=r"exit 1 was not trained \(terminal supervision of 3 loops\)"):
        out = speculate(model, inputs)
    assert torch.equal(out.sequences, plain(model, inputs))


def test_a_trained_one_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        speculate(tiny_model(), prompts())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draft_loops": 0}, "draft_loops is 0"),
        ({"draft_loops": 3}, "fewer than the 3 that verify"),
        ({"num_loops": 1}, "fewer than the 1 that verify"),
        ({"draft_tokens": 0}, "draft_tokens is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 43}, "need 49 positions, but this model has 48"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": 1.0, "top_p": 2.0}, "top_p is 2"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"tie_margin": -1.0}, "tie_margin is -1"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long), "attention_mask": None}, "prompt is empty"),
        ({"input_ids": torch.full((1, 7), 300)}, "the model knows 0 to 30"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]])}, "pad on the left alone"),
        ({"attention_mask": torch.zeros(1, 7, dtype=torch.long)}, "prompt is empty"),
    ],
)
def test_bad_input_is_named(options, words):
    with pytest.raises(InputError, match=words):
        speculate(tiny_model(), prompts(pads=(0,)), **options)


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        (torch.zeros(7, dtype=torch.long), None, "give a LongTensor"),
        (torch.zeros(0, 7, dtype=torch.long), None, "give a LongTensor"),
        (torch.zeros(1, 7), None, "give a LongTensor"),
        (torch.zeros(1, 7, dtype=torch.long), torch.ones(1, 3), r"the mask is \[1, 3\]"),
    ],
)
def test_prompts_of_another_form_are_named(ids, mask, words):
    with pytest.raises(InputError, match=words):
        read_request(tiny_model(), ids, 3, attention_mask=mask)


def test_more_than_one_prompt_cannot_stream():
    with pytest.raises(InputError, match="one prompt at a time"):
        speculate(tiny_model(), prompts(), streamer=TextStreamer(None))


@pytest.mark.usefixtures("mechanisms")
def test_a_part_that_reads_the_loop_is_refused():
    with pytest.raises(InputError, match="the recurrence of this model computes something else in every loop"):
        speculate(tiny_model(recurrence="mixing"), prompts())
