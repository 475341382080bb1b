"""Greedy generation without a cache, from any looped model: nothing but the verbs is needed."""

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from loopscale.batches import device_of
from loopscale.call import Call
from loopscale.decode.sampling import SAYS_NOTHING, all_alike, require_numbers
from loopscale.errors import InputError, require_looped
from loopscale.stepping import Context, Looped, TakesContext, Tokens

NextTokens = Int[Tensor, " batch"]


def stream_plainly(
    model: Looped,
    input_ids: Tokens,
    max_new_tokens: int,
    num_loops: int | None = None,
    eos_token_id: int | None = None,
    attention_mask: Tensor | None = None,
) -> Iterator[NextTokens]:
    """Yield the greedy next tokens of every row, one (batch,) tensor per step, without a cache.

    `attention_mask` (batch, seq) says where prompts are padded, on their left. A row that has ended goes on with
    `eos_token_id`; the stream ends when all have. The text is exact, and its cost grows with the square of its length:
    models of this library's own kind have `generate`, which caches.

    Raises `InputError` for an empty prompt, no token to add, fewer than 1 loop, or padding that cannot be honoured.
    """
    require_looped(model)
    input_ids = input_ids.to(device_of(model))
    mask = None if attention_mask is None else _left_padded(model, attention_mask.to(input_ids.device))
    depth = model.num_loops if num_loops is None else num_loops
    if input_ids.numel() == 0:
        raise InputError("the prompt is empty: give at least one token.")
    if max_new_tokens < 1 or depth < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens} and num_loops {depth}: both must be at least 1.")
    ended = torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
    for i in range(max_new_tokens):
        with torch.no_grad():
            call = Call(model, input_ids, _context(model, input_ids, mask))
            for z in call.states(depth):
                last = z
            logits = call.readout(last, depth - 1)[:, -1]
        require_numbers(logits.amax(-1).flatten().tolist())
        if i == 0 and all_alike(logits):
            warnings.warn(SAYS_NOTHING, stacklevel=2)
        tokens = logits.argmax(-1)
        if eos_token_id is not None:
            tokens = tokens.masked_fill(ended, eos_token_id)
            ended = ended | (tokens == eos_token_id)
        yield tokens
        if ended.all():
            return
        input_ids = torch.cat([input_ids, tokens[:, None]], 1)
        mask = None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], 1)


def _left_padded(model: Looped, mask: Tensor) -> Tensor | None:
    """Return the mask, None where nothing is padded. Raises `InputError` where the next token would follow padding."""
    if bool(mask.bool().all()):
        return None
    if not bool(mask[:, -1].bool().all()):
        raise InputError("prompts are padded on their right, where the text goes on: pad them on their left.")
    if not isinstance(model, TakesContext):
        raise InputError(
            f"{type(model).__name__} has no context(tokens, attention_mask), which padded prompts need: give prompts "
            "of one length."
        )
    return mask


def _context(model: Looped, input_ids: Tokens, mask: Tensor | None) -> Context | None:
    """Return the context of padded prompts; None leaves it to the call."""
    return None if mask is None else model.context(input_ids, mask)  # type: ignore[attr-defined]  # `_left_padded` asked
