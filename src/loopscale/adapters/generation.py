"""Greedy generation without a cache, from any looped model: nothing but the verbs is needed."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from loopscale.batches import device_of
from loopscale.call import Call
from loopscale.errors import InputError, require_looped
from loopscale.stepping import Looped, Tokens

NextTokens = Int[Tensor, " batch"]


def stream_plainly(
    model: Looped,
    input_ids: Tokens,
    max_new_tokens: int,
    num_loops: int | None = None,
    eos_token_id: int | None = None,
) -> Iterator[NextTokens]:
    """Yield the greedy next tokens of every row, one (batch,) tensor per step, without a cache.

    A row that has ended goes on with `eos_token_id`; the stream ends when all have. The text is exact, and its cost
    grows with the square of its length: models of this library's own kind have `generate`, which caches.

    Raises `InputError` for an empty prompt, no token to add, or fewer than 1 loop.
    """
    require_looped(model)
    input_ids = input_ids.to(device_of(model))
    depth = model.num_loops if num_loops is None else num_loops
    if input_ids.numel() == 0:
        raise InputError("the prompt is empty: give at least one token.")
    if max_new_tokens < 1 or depth < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens} and num_loops {depth}: both must be at least 1.")
    ended = torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            call = Call(model, input_ids)
            for z in call.states(depth):
                last = z
            tokens = call.readout(last, depth - 1)[:, -1].argmax(-1)
        if eos_token_id is not None:
            tokens = tokens.masked_fill(ended, eos_token_id)
            ended = ended | (tokens == eos_token_id)
        yield tokens
        if ended.all():
            return
        input_ids = torch.cat([input_ids, tokens[:, None]], 1)
