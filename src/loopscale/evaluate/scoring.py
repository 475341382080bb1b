"""Sliding windows over a text."""

from collections.abc import Iterator

from jaxtyping import Int
from torch import Tensor, stack

from loopscale.batches import TextWindows
from loopscale.errors import InputError
from loopscale.objective import IGNORED


def sliding_windows(
    tokens: Int[Tensor, " length"], sequence_length: int, stride: int, batch_size: int
) -> Iterator[TextWindows]:
    """Yield (input_ids, labels) that score each token of a text once, after the first.

    A window's labels are scored only where the window before has not scored them, so every token but those of the first
    window has at least `sequence_length - stride` tokens of context. The last window ends at the text's end.

    Raises `InputError` for a stride outside 1..sequence_length or a text shorter than a window.
    """
    if not 1 <= stride <= sequence_length:
        raise InputError(
            f"stride {stride} does not fit windows of {sequence_length} tokens: choose 1..{sequence_length}."
        )
    last = len(tokens) - sequence_length - 1
    if last < 0:
        raise InputError(f"a text of {len(tokens)} tokens is shorter than one window of {sequence_length} + 1.")
    starts = [*range(0, last, stride), last]
    scored = 0  # labels up to here have been scored
    rows: list[tuple[Tensor, Tensor]] = []
    for start in starts:
        window = tokens[start : start + sequence_length + 1]
        labels = window[1:].clone()
        labels[: scored - start] = IGNORED
        scored = start + sequence_length
        rows.append((window[:-1], labels))
        if len(rows) == batch_size or start == last:
            yield TextWindows(stack([inputs for inputs, _ in rows]), stack([labels for _, labels in rows]))
            rows = []
