import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscale.batches import inputs_and_labels
from loopscale.errors import InputError
from loopscale.evaluate import depth_curve, sliding_windows
from loopscale.objective import IGNORED, logit_losses
from tests.helpers import tiny_model


@given(length=st.integers(2, 60), window=st.integers(1, 20), stride=st.integers(1, 20), batch=st.integers(1, 5))
def test_sliding_windows_score_every_token_once_with_context(length, window, stride, batch):
    if stride > window or length <= window:
        return
    tokens = torch.arange(length)
    seen = []
    for inputs, labels in sliding_windows(tokens, window, stride, batch):
        assert 1 <= len(inputs) <= batch
        assert inputs.shape == labels.shape == (len(inputs), window)
        for row, wanted in zip(inputs, labels, strict=True):
            scored = wanted != IGNORED
            assert torch.equal(wanted[scored], row[scored] + 1)  # the label is the next token of the text
            if row[0] != 0:
                assert int(scored.nonzero()[0]) >= window - stride
            seen += wanted[scored].tolist()
    assert seen == list(range(1, length))


@pytest.mark.parametrize(
    ("stride", "length", "sentence"), [(0, 30, "stride 0"), (9, 30, "stride 9"), (4, 8, "shorter than one window")]
)
def test_sliding_windows_reject_what_does_not_fit(stride, length, sentence):
    with pytest.raises(InputError, match=sentence):
        list(sliding_windows(torch.arange(length), 8, stride, 2))


@pytest.mark.parametrize(
    "batch",
    [torch.zeros(3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long)],
    ids=["flat", "float", "one token"],
)
def test_a_batch_of_another_form_is_an_input_error(batch):
    with pytest.raises(InputError, match="LongTensor"):
        inputs_and_labels(batch)


def test_inputs_and_labels_must_match():
    with pytest.raises(InputError, match="pair"):
        inputs_and_labels((torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)))


def test_nothing_to_score_is_an_input_error():
    with pytest.raises(InputError, match="no batches"):
        depth_curve(tiny_model(), [])


def test_losses_in_pieces_equal_those_at_once(monkeypatch):
    monkeypatch.setattr("loopscale.objective.passes.CPU_BLOCK_BYTES", 5 * 11 * 8)
    logits, labels = torch.randn(3, 7, 11, dtype=torch.float64), torch.randint(0, 11, (3, 7))
    labels[1, 2] = IGNORED
    expected = -logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    expected[1, 2] = 0
    with torch.no_grad():
        torch.testing.assert_close(logit_losses(logits, labels), expected)
