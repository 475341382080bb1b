"""Batches of windows, as every measurement takes them: where tokens are, which labels count, what is padding.

Rows that are padded on their left are shifted to begin with their first token. To a causal model this is what a mask
and positions from that token on are, and it holds for a model of four functions too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from loopscale.errors import InputError
from loopscale.facts import facts_of
from loopscale.hf import execution_device
from loopscale.objective import IGNORED
from loopscale.stepping import Looped, Tokens

# (batch, seq + 1) tokens, a pair (input_ids, labels) of (batch, seq) ones, or what a tokenizer gives
Batch = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Batches = Iterable[Batch] | Any  # anything, where what is no such thing is answered by an `InputError`
Real = Bool[Tensor, "batch seq"]

FORMS = (
    "a batch must be a LongTensor (batch, seq + 1) with at least 2 tokens a row, a pair (input_ids, labels) of "
    "LongTensors (batch, seq), or a mapping with input_ids and, as a tokenizer gives them, attention_mask and labels"
)
MASK = "give a mapping with input_ids and attention_mask"


class TextWindows(NamedTuple):
    """A pair (input_ids, labels) of windows cut from a text: what does not count there is context and no padding."""

    input_ids: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]


class Window(NamedTuple):
    """One batch as it is measured: inputs, labels (the next tokens), which labels count, and which inputs are tokens.

    `real` is False where a row is filled: after its last token, for nothing stands before its first.
    """

    inputs: Tokens
    labels: Tokens
    counted: Real
    real: Real


def windows_of(model: Looped, batches: Batches, padding: int | None = None) -> Iterator[Window]:
    """Yield every batch as a window where the model's weights lie.

    `padding` is the token that fills rows, if it is known (`Facts.padding`). Raises `InputError` for a batch of another
    form, one whose padding cannot be told from text, or where no batch or no label that counts is left.
    """
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        # a bare tensor would be taken apart into rows
        raise InputError(f"batches must be a list or another iterable of batches, got {_found(batches)}: give [batch].")
    device = device_of(model)
    known = facts_of(model).vocab_size
    found, tokens = 0, 0
    for batch in batches:
        window = read_batch(batch, padding)
        _require_known(window, known)
        found, tokens = found + 1, tokens + int(window.counted.sum())
        yield Window(*(part.to(device) for part in window))
    if not tokens:
        what = f"no label of the {found} batches counts: all are {IGNORED}" if found else "there are no batches"
        raise InputError(f"{what}: give at least one (batch, seq + 1) LongTensor of tokens (a longer text).")


def inputs_and_labels(batch: Batch | Any, padding: int | None = None) -> tuple[Tokens, Tokens]:
    """Return the (batch, seq) inputs and labels of a batch; see `read_batch`."""
    window = read_batch(batch, padding)
    return window.inputs, window.labels


def read_batch(batch: Batch | Any, padding: int | None = None) -> Window:
    """Return a batch as a window, where it lies.

    -100 is no token: it may fill the end of a row, where causal models do not look, and stand for labels of a pair that
    do not count. Labels of a mapping are aligned with its tokens, as transformers has them.

    Padding is taken from the attention mask where there is one, and else inferred as `generate` does: tokens `padding`
    at the ends of a row. Raises `InputError` for a batch of another form, for a mask with holes, and where a row begins
    with one token again and again that does not count and may be padding or text.
    """
    ids, labels, mask = _parts(batch, padding)
    ids = ids.masked_fill(ids == IGNORED if mask is None else ~mask, 0)
    if mask is not None:
        labels = labels.masked_fill(~mask, IGNORED)
    unseen = _trailing(labels == IGNORED)  # behind the last label that counts nobody looks
    first, last = _ends(~unseen if mask is None else mask & ~unseen)
    if bool(first.any()):
        order = (torch.arange(ids.shape[1], device=ids.device) + first[:, None]) % ids.shape[1]
        ids, labels = ids.gather(1, order), labels.gather(1, order)
    real = torch.arange(ids.shape[1], device=ids.device) < (last - first)[:, None]
    return Window(ids, labels, labels != IGNORED, real)


def device_of(model: Looped) -> torch.device:
    """Return where the model computes."""
    return execution_device(model) if isinstance(model, nn.Module) else torch.device("cpu")


def _parts(batch: Any, padding: int | None) -> tuple[Tensor, Tensor, Real | None]:
    """Return inputs, labels, and which inputs are tokens where the batch or its padding token says so."""
    match batch:
        case Tensor() if _is_long(batch) and len(batch) and batch.shape[1] >= 2:
            _require_tokens_first(batch)
            real = _told(batch, padding)
            labels = batch[:, 1:] if real is None else batch[:, 1:].masked_fill(~real[:, 1:], IGNORED)
            return batch[:, :-1], labels, None if real is None else real[:, :-1]
        case TextWindows(ids, labels):
            return ids, labels, torch.ones_like(ids, dtype=torch.bool)
        case (Tensor() as ids, Tensor() as labels) if (
            _is_long(ids) and ids.dtype == labels.dtype and ids.numel() and ids.shape == labels.shape
        ):
            _require_tokens_first(ids)
            real = _told(ids, padding)
            if real is None:
                _require_no_doubt(ids, labels)
                return ids, labels, None
            fill = (labels == padding) & _trailing((labels == padding) | (labels == IGNORED))
            return ids, labels.masked_fill(fill, IGNORED), real
        case Mapping() if _is_long(batch.get("input_ids")) and batch["input_ids"].shape[1] >= 2:
            return _of_tokenizer(batch, padding)
    raise InputError(f"{FORMS}, got {_found(batch)}.")


def _of_tokenizer(batch: Mapping[str, Any], padding: int | None) -> tuple[Tensor, Tensor, Real | None]:
    """Return the parts of a mapping; its labels, where it has some, are those of its own tokens."""
    ids, mask, labels = batch["input_ids"], batch.get("attention_mask"), batch.get("labels")
    for name, part in (("attention_mask", mask), ("labels", labels)):
        if part is not None and not (isinstance(part, Tensor) and part.shape == ids.shape):
            raise InputError(f"{name} of a batch is {_found(part)}, not one for each of its {list(ids.shape)} tokens.")
    real = _told(ids, padding) if mask is None else mask.bool()
    wanted = ids if labels is None else labels
    if real is not None:
        wanted = wanted.masked_fill(~real, IGNORED)
    elif labels is not None:
        _require_no_doubt(ids[:, :-1], labels[:, 1:])
    return ids[:, :-1], wanted[:, 1:], None if real is None else real[:, :-1]


def _told(ids: Tensor, padding: int | None) -> Real | None:
    """Return which tokens are not the padding at an end of their row; None where no row has any."""
    if padding is None or not bool((ids == padding).any()):
        return None
    fill = (ids == padding) | (ids == IGNORED)
    return ~(_leading(fill) | _trailing(fill))


def _require_known(window: Window, vocab_size: int | None) -> None:
    """Raise `InputError` for a token, or a label that counts, which no model or not this one knows."""
    for ids in (window.inputs, window.labels[window.counted]):
        if ids.numel() and (int(ids.min()) < 0 or (vocab_size is not None and int(ids.max()) >= vocab_size)):
            last = "" if vocab_size is None else f" to {vocab_size - 1}"
            raise InputError(
                f"a batch has ids from {int(ids.min())} to {int(ids.max())}, and the model knows those from 0{last}: "
                "tokenize the text with the tokenizer of this model."
            )


def _ends(mask: Real) -> tuple[Tensor, Tensor]:
    """Return where the tokens of every row begin and end. Raises `InputError` for a mask with holes."""
    first, tail = _leading(~mask).sum(1), _trailing(~mask).sum(1)
    last = mask.shape[1] - tail
    empty = ~mask.any(1)
    if bool((mask.sum(1) != last - first)[~empty].any()):
        raise InputError("the attention_mask of a batch has holes: padding stands at the ends of a row, mend the mask.")
    return first.masked_fill(empty, 0), last.masked_fill(empty, 0)


def _leading(flags: Real) -> Real:
    return flags.long().cumprod(1).bool()


def _trailing(flags: Real) -> Real:
    return _leading(flags.flip(1)).flip(1)


def _require_tokens_first(ids: Tensor) -> None:
    ignored = ids == IGNORED
    if bool((ignored[:, :-1] & ~ignored[:, 1:]).any()):
        raise InputError(
            f"a batch has {IGNORED} before tokens, so that the tokens there are lost: give a pair (input_ids, labels) "
            f"with {IGNORED} among the labels alone."
        )


def _require_no_doubt(ids: Tensor, labels: Tensor) -> None:
    """Raise `InputError` where a row begins with nothing but one token again and again that does not count."""
    ahead = _leading(labels == IGNORED)
    repeated = ahead & (ids == ids[:, :1])
    doubtful = (ahead.sum(1) >= 2) & (repeated == ahead).all(1) & ~ahead.all(1)
    if bool(doubtful.any()):
        row = int(doubtful.nonzero()[0])
        raise InputError(
            f"row {row} of a batch begins with {int(ahead[row].sum())} times token {int(ids[row, 0])}, of which none "
            f"counts: {MASK}, so that padding on the left can be told from text."
        )


def _is_long(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.long and x.ndim == 2 and x.numel() > 0


def _found(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"{batch.dtype} {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} with {', '.join(map(str, batch)) or 'nothing'}"
    return f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, list | tuple) else type(batch).__name__
