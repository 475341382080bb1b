"""Measurement of a lens: the likeliest next tokens at every exit, scale and turn of the state, surprise.

Any model with the four verbs can be looked at; one window of the text is held at a time.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.call import Call
from loopscale.display import Track, inert, untracked
from loopscale.errors import InputError, require_looped
from loopscale.facts import facts_of
from loopscale.hf import execution_device
from loopscale.state import angular_step, scale
from loopscale.stepping import Looped, evaluating

TOP = 5
WINDOW = 1024  # tokens at a time, of a model with room for more
SHOWN = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


@final
@dataclass(frozen=True)
class Lens:
    """A text as a looped model reads it; T tokens, K loops, n likeliest.

    tokens and top are indices into pieces. probability: of the n likeliest next tokens at each exit. surprise: nats
    that the token which does come next costs at each exit, NaN after the last. scale: RMS of the state. angular_step:
    how far the direction of unit RMS turns from loop k to k + 1. settles: loop, from 1, from which on the likeliest is
    that of the last exit. context: tokens that a prediction sees at least, where the text is that long.
    """

    pieces: tuple[str, ...]
    tokens: Int[Tensor, " seq"]
    top: Int[Tensor, "seq loops top"]
    probability: Float[Tensor, "seq loops top"]
    surprise: Float[Tensor, "seq loops"]
    scale: Float[Tensor, "seq loops"]
    angular_step: Float[Tensor, "seq turns"]
    settles: Int[Tensor, " seq"]
    context: int

    @property
    def loops(self) -> int:
        """K, the loops that were run."""
        return self.scale.shape[1]

    @property
    def alike(self) -> tuple[int, ...]:
        """The exits, from 1, whose likeliest tokens are all equally likely, wherever they are asked."""
        same = self.probability.amax(-1) <= self.probability.amin(-1)
        return tuple(k for k, all_same in enumerate(same.all(0).tolist(), 1) if all_same and self.top.shape[-1] > 1)


def look(
    model: Looped | Any,
    input_ids: Int[Tensor, "*row seq"] | Sequence[int],
    tokenizer: Any,
    loops: int | None = None,
    window: int | None = None,
    track: Track = untracked,
) -> Lens:
    """Return what a model makes of a text at every exit, `loops` of them (default: the model's).

    `input_ids` are one text: (seq), a batch of one row, or a list.

    A text longer than `window` tokens (default: the model's positions, at most 1,024) is read in windows that overlap
    by half, so that every prediction but those of the first sees at least half a window.

    Raises `InputError` for an empty text or several, tokens that the model has not, fewer than 1 loop, a window of less
    than 2 tokens or more than the positions, logits of another shape, and a state that is not finite.
    """
    require_looped(model)
    facts = facts_of(model)
    input_ids = _one_row(input_ids, facts.vocab_size)
    room = WINDOW if facts.positions is None else min(WINDOW, facts.positions)
    window = room if window is None else window
    loops = model.num_loops if loops is None else loops
    if loops < 1:
        raise InputError(f"loops is {loops}: look at 1 loop or more.")
    if window < 2 or (facts.positions is not None and window > facts.positions):
        limit = "" if facts.positions is None else f" to {facts.positions}"
        raise InputError(f"window is {window}: the model reads 2{limit} tokens at a time.")
    ids = input_ids.to(execution_device(model) if isinstance(model, torch.nn.Module) else input_ids.device)
    parts = []
    with evaluating(model):
        for start, kept in track(list(_windows(len(ids), window)), "looking"):
            here = ids[start : start + window]
            following = ids[start + 1 : start + window + 1]
            parts.append([part[kept:].cpu() for part in _read(model, here, following, loops)])
    top, probability, surprise, scales, turns = (torch.cat(column) for column in zip(*parts, strict=True))
    unlike = (top[..., 0] != top[:, -1:, 0]).long()
    settles = 1 + (unlike * torch.arange(1, loops + 1)).amax(-1)
    used, index = torch.unique(torch.cat([input_ids.cpu(), top.flatten()]), return_inverse=True)
    return Lens(
        pieces=tuple(piece(tokenizer, i) for i in used.tolist()),
        tokens=index[: len(ids)],
        top=index[len(ids) :].view_as(top),
        probability=probability,
        surprise=surprise,
        scale=scales,
        angular_step=turns,
        settles=settles,
        context=min(len(ids), window if len(ids) <= window else window // 2),
    )


def _one_row(input_ids: Tensor | Sequence[int], vocab_size: int | None) -> Tensor:
    """Return the tokens of one text, (seq)."""
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("input_ids are no row of whole numbers: give the token ids of one text.") from error
    if ids.numel() == 0:
        raise InputError("the text is empty: give some to look at.")
    whole = not (ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex())
    if not whole or ids.ndim == 0 or ids.numel() != ids.shape[-1]:
        raise InputError(f"input_ids are {ids.dtype} {tuple(ids.shape)}: give the token ids of one text.")
    ids = ids.reshape(-1).long()
    if vocab_size is not None and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise InputError(
            f"a token of the text is {int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())}, and the model has "
            f"{vocab_size}: use the tokenizer that it was trained with."
        )
    return ids


def _windows(length: int, window: int) -> Iterator[tuple[int, int]]:
    """Yield the first token of each window, and how many of its tokens the windows before have read."""
    done = start = 0
    while done < length:
        yield start, done - start
        done = min(length, start + window)
        start = max(0, min(done - window // 2, length - window))


def _read(model: Any, ids: Tensor, following: Tensor, loops: int) -> list[Tensor]:
    """Return top, probability, surprise, scale and turns of one window, tokens first."""
    call = Call(model, ids[None])
    top, probability, surprise, scales, turns = [], [], [], [], []
    before = None
    for k, z in enumerate(call.states(loops)):
        logits = call.readout(z, k)
        if logits.shape[:-1] != (1, len(ids)):
            raise InputError(
                f"readout returned {tuple(logits.shape)} for a state {tuple(z.shape)}: return (batch, seq, vocab)."
            )
        logs = logits[0].float().log_softmax(-1)
        likeliest = logs.topk(min(TOP, logs.shape[-1]))
        top.append(likeliest.indices)
        probability.append(likeliest.values.exp())
        cost = torch.full((len(ids),), torch.nan, device=logs.device)
        cost[: len(following)] = -logs[: len(following)].gather(-1, following[:, None]).squeeze(-1)
        surprise.append(cost)
        scales.append(scale(z)[0].float())
        if before is not None:
            turns.append(angular_step(before, z)[0].float())
        before = z
    wrong = [k for k, fine in enumerate(torch.stack(scales).isfinite().all(-1).tolist(), 1) if not fine]
    if wrong:
        raise InputError(
            f"the state after loop {wrong[0]}, or the sum of its squares, is not finite: look at fewer loops, or check "
            "the weights."
        )
    none = scales[0].new_zeros(len(ids), 0)
    return [torch.stack(part, 1) if part else none for part in (top, probability, surprise, scales, turns)]


def piece(tokenizer: Any, token: int) -> str:
    """Return a token as a reader sees it: white space spelled out, a part of a letter by its name."""
    try:
        text = tokenizer.decode([token])
        name = tokenizer.convert_ids_to_tokens(token)
    except Exception:  # an id beyond the tokenizer, of a padded vocabulary; libraries differ in what they raise
        return f"⟨{token}⟩"
    if not isinstance(text, str) or not text or "\ufffd" in text:
        return f"⟨{inert(name)}⟩" if isinstance(name, str) and name else f"⟨{token}⟩"
    return "".join(SHOWN.get(c) or ("␣" if c != " " and unicodedata.category(c) == "Zs" else inert(c)) for c in text)
