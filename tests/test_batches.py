"""Padding in batches: masked, told by the tokens, or refused in words; the figures are those of the bare rows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

from loopscale import InputError
from loopscale.audit import audit, intervene, loop_curves, search
from loopscale.batches import TextWindows, read_batch, windows_of
from loopscale.evaluate import RULES, CalibratedRule, depth_curve, halted_logits, sliding_windows, trace_exits
from loopscale.study.topics.audit import record_of
from tests.helpers import tiny_model

IDS = torch.randint(1, 31, (2, 13), generator=torch.Generator().manual_seed(5))
PAIR = IDS[:, :-1], IDS[:, 1:]
FILL, NONE = torch.zeros(2, 5, dtype=torch.long), torch.full((2, 5), -100)


def mapping(left, right=0, **more):
    """What a tokenizer gives for the rows, with so much padding at either end."""
    ids = torch.cat([FILL[:, :left], IDS, FILL[:, :right]], 1)
    mask = torch.cat([FILL[:, :left], torch.ones_like(IDS), FILL[:, :right]], 1)
    return {"input_ids": ids, "attention_mask": mask, **more}


PADDED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "a mask on the left": (lambda: mapping(5), {}),
    "a model that reads input and state again": (lambda: mapping(5), {"injection": "linear", "recurrence": "gated"}),
    "a mask on both sides": (lambda: mapping(3, 2), {}),
    "a tokenizer's own mapping": (lambda: BatchEncoding(mapping(4, labels=mapping(4)["input_ids"])), {}),
    "a pair with its padding known": (
        lambda: (torch.cat([FILL, PAIR[0]], 1), torch.cat([NONE, PAIR[1]], 1)),
        {"pad_token_id": 0},
    ),
    "a pair whose padding counts": (
        lambda: (torch.cat([FILL, PAIR[0]], 1), torch.cat([FILL[:, 1:], IDS], 1)),
        {"pad_token_id": 0},
    ),
    "a pair filled on its right": (lambda: (torch.cat([PAIR[0], FILL], 1), torch.cat([PAIR[1], NONE], 1)), {}),
    "rows on the left": (lambda: torch.cat([FILL, IDS], 1), {"pad_token_id": 0}),
    "rows on the right": (lambda: torch.cat([IDS, FILL], 1), {"pad_token_id": 0}),
    "rows filled with -100": (lambda: torch.cat([IDS, NONE], 1), {}),
}


@pytest.mark.parametrize("name", PADDED)
def test_a_padded_batch_gives_the_figures_of_its_bare_rows(name):
    build, options = PADDED[name]
    model, bare = tiny_model(**options).double(), [IDS]
    padded = [build()]
    here, there = depth_curve(model, padded), depth_curve(model, bare)
    assert here.tokens.tolist() == there.tokens.tolist() == [12, 12]
    for a, b in zip(here, there, strict=True):
        assert (a.cross_entropy, a.norm) == pytest.approx((b.cross_entropy, b.norm), rel=1e-9)
    filled, full = audit(model, padded), audit(model, bare)
    for one, other in zip(filled.coordinates.values(), full.coordinates.values(), strict=True):
        assert one.visibility == pytest.approx(other.visibility, rel=1e-6, abs=1e-12)
        assert one.retention == pytest.approx(other.retention, rel=1e-9)
        assert one.drift == pytest.approx(other.drift, rel=1e-9)
    assert loop_curves(model, padded, 6).angular_step == pytest.approx(
        loop_curves(model, bare, 6).angular_step, rel=1e-9
    )
    costs = [intervene(model, batches).cost("remove_radial") for batches in (padded, bare)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", PADDED)
def test_halting_sees_no_filling(name, level):
    build, options = PADDED[name]
    model = tiny_model(**options)
    (here,), (there,) = list(windows_of(model, [build()], options.get("pad_token_id"))), list(windows_of(model, [IDS]))
    rule = RULES["max_probability"]
    traces = [trace_exits(model, [batch], [rule]) for batch in (build(), IDS)]
    padded, bare = (trace.level_scores(rule.name, level) for trace in traces)
    torch.testing.assert_close(padded[..., : bare.shape[-1]], bare)
    halting = CalibratedRule(rule, float(bare[0].median()), level, 3)
    stopped = [halted_logits(model, window.inputs, halting, window.real)[:, :12] for window in (here, there)]
    torch.testing.assert_close(stopped[0], stopped[1])


MEASURES = [audit, loop_curves, intervene, record_of, depth_curve, lambda m, b: search(m, [*b, *b])]


@pytest.mark.parametrize("measure", MEASURES)
def test_padding_that_cannot_be_told_from_text_is_refused(measure):
    unknown = torch.cat([FILL, PAIR[0]], 1), torch.cat([NONE, PAIR[1]], 1)
    with pytest.raises(InputError, match=r"begins with 5 times token 0.*attention_mask.*padding on the left"):
        measure(tiny_model(), [unknown])


def test_context_that_does_not_count_is_no_padding():
    windows = list(sliding_windows(torch.zeros(40, dtype=torch.long), 12, 4, 2))
    assert all(isinstance(batch, TextWindows) for batch in windows)
    assert int(depth_curve(tiny_model(), windows).tokens.sum()) == 39
    context = torch.full_like(PAIR[1], -100)
    context[:, 6:] = PAIR[1][:, 6:]
    assert depth_curve(tiny_model(), [(PAIR[0], context)]).tokens.tolist() == [6, 6]
    text = {"input_ids": FILL.repeat(1, 3), "attention_mask": torch.ones(2, 15, dtype=torch.long)}
    assert depth_curve(tiny_model(), [text]).tokens.tolist() == [14, 14]


def test_labels_of_a_mapping_are_those_of_its_own_tokens():
    labels = IDS.clone()
    labels[:, :4] = -100
    window = read_batch({"input_ids": IDS, "labels": labels})
    assert torch.equal(window.inputs, PAIR[0])
    assert window.counted[0].tolist() == [False] * 3 + [True] * 9
    assert torch.equal(window.labels[window.counted], PAIR[1][window.counted])


def test_a_row_of_nothing_but_padding_counts_nowhere():
    batch = mapping(0)
    batch["attention_mask"][1] = 0
    window = read_batch(batch)
    assert window.counted.sum(1).tolist() == [12, 0] and window.real.sum(1).tolist() == [12, 0]
    assert depth_curve(tiny_model(), [batch]).tokens.tolist() == [12, 0]


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ({**mapping(0), "attention_mask": torch.tensor([[1, 1, 0] + [1] * 10] * 2)}, "holes"),
        ({**mapping(0), "attention_mask": torch.ones(2, 4)}, "attention_mask of a batch is torch.float32"),
        ({**mapping(0), "labels": [1, 2]}, "labels of a batch is list of 2"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}, "got dict with input_ids, attention_mask"),
        ({"input_ids": IDS[:, :1]}, "got dict with input_ids"),
        ({}, "got dict with nothing"),
        (None, "got NoneType"),
    ],
)
def test_other_mappings_are_refused_in_words(batch, sentence):
    with pytest.raises(InputError, match=sentence):
        read_batch(batch)


@pytest.mark.parametrize("batches", [IDS, mapping(0), "text", None, 3])
def test_one_batch_in_place_of_many_is_refused(batches):
    for measure in (audit, depth_curve):
        with pytest.raises(InputError, match=r"iterable of batches, got"):
            measure(tiny_model(), batches)


@pytest.mark.parametrize("token", [-1, 31])
def test_a_token_that_the_model_does_not_know_is_told(token):
    batch = torch.zeros(2, 9, dtype=torch.long)
    for place in (3, 8):  # read, and a label alone
        batch[1, place] = token
        with pytest.raises(InputError, match=f"ids from .*{token}.*, and the model knows those from 0 to 30"):
            depth_curve(tiny_model(vocab_size=31), [batch], 2)
        batch[1, place] = 0


def test_no_label_that_counts_is_told():
    for measure in (audit, depth_curve):
        with pytest.raises(InputError, match="no label of the 1 batches counts"):
            measure(tiny_model(), [(PAIR[0], torch.full_like(PAIR[1], -100))])
