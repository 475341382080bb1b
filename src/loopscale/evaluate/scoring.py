"""From batches to the cross-entropy of every token at an exit, for our models and for any other `Looped`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.batches import Batch, device_of, inputs_and_labels
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.objective import IGNORED, logit_cross_entropy, token_cross_entropy
from loopscale.required import require_looped
from loopscale.stepping import Logits, Looped, State

Labels = Int[Tensor, "batch seq"]
TokenLosses = Float[Tensor, "batch seq"]
ExitLosses = Callable[[State, int, Labels], TokenLosses]

WIDE_TOKENS = 4096  # tokens of a foreign model's logits that are held in float32 at once


@runtime_checkable
class TrainedAtDepth(Protocol):
    """A looped model that knows the depth its loss saw, beside the depth it runs."""

    trained_loops: int


def read_batches(model: Looped, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels on the model's device. Raises `InputError` if there is nothing to score."""
    require_looped(model)
    device = device_of(model)
    empty = True
    for batch in batches:
        inputs, labels = inputs_and_labels(batch)
        empty = False
        yield inputs.to(device), labels.to(device)
    if empty:
        raise InputError("there are no windows to evaluate: give a longer text or a shorter sequence length.")


def sliding_windows(
    tokens: Int[Tensor, " length"], sequence_length: int, stride: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
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
            yield torch.stack([inputs for inputs, _ in rows]), torch.stack([labels for _, labels in rows])
            rows = []


def readings_of(model: Looped) -> Mapping[str, ExitLosses]:
    """Return the ways to read an exit, by name.

    `trained`: as the loss saw it. `final`: normalised at every exit, as if it were the last; only `final_rmsnorm`,
    which trains its intermediate exits raw, has both.
    """
    require_looped(model)
    if not isinstance(model, LoopedForCausalLM):
        return {"trained": lambda z, k, labels: logit_losses(model.readout(z, k), labels)}
    trained = {"trained": _our_losses(model, None)}
    return {**trained, "final": _our_losses(model, True)} if model.config.readout == "final_rmsnorm" else trained


def _our_losses(model: LoopedForCausalLM, last: bool | None) -> ExitLosses:
    def losses(z: State, k: int, labels: Labels) -> TokenLosses:
        return token_cross_entropy(model.readout_state(z, k, last), model.lm_head, labels)

    return losses


def logit_losses(logits: Logits, labels: Labels) -> TokenLosses:
    """Return the cross-entropy of every token in nats, in float32 or better; 0 where the label is ignored."""
    pieces = zip(logits.flatten(0, 1).split(WIDE_TOKENS), labels.flatten().split(WIDE_TOKENS), strict=True)
    return torch.cat([logit_cross_entropy(some, wanted) for some, wanted in pieces]).view(labels.shape)


def trained_depth(model: Looped) -> int:
    """Return the number of loops the loss saw; for a model that does not say so, the number it runs."""
    require_looped(model)
    return model.trained_loops if isinstance(model, TrainedAtDepth) else model.num_loops
