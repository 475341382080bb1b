"""Request to a decoder: prompts, how much to write at which depth, and where a text ends.

Every decoder takes the same options, so they are written, checked and explained once, here.
"""

import warnings
from dataclasses import dataclass
from typing import Any, TypedDict, final

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.decode.sampling import Greedy, Sampled, Sampling, check_sampling
from loopscale.decode.settings import Processing, read_settings
from loopscale.errors import InputError
from loopscale.hf import attention_implementation, execution_device
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Tokens


class Options(TypedDict, total=False):
    """Keywords of every decoder.

    num_loops: depth (default: the model's). attention_mask: 1 for tokens, 0 for padding on the left, (batch,
    seq), of any type; inferred as `generate` infers it where it is left out.
    temperature, top_k, top_p, generator: sampling, where there is a temperature; else the likeliest token is taken.
    eos_token_id, pad_token_id: where a text ends and what fills it up (default: the generation configuration's).
    streamer: told of the tokens of a lone prompt as they come.
    """

    num_loops: int | None
    attention_mask: Shaped[Tensor, "batch seq"] | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    generator: torch.Generator | None
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    streamer: BaseStreamer | None


@final
@dataclass(frozen=True)
class Request:
    """Left-padded prompts, (batch, width), `pads` columns of padding in every row, and what is to be written.

    `ends` are the tokens that end a text, `pad` fills it up afterwards. `processing` is what settings do to
    logits.
    """

    ids: Tokens
    mask: Int[Tensor, "batch width"] | None
    pads: list[int]
    max_new_tokens: int
    num_loops: int
    ends: frozenset[int]
    pad: int
    streamer: BaseStreamer | None
    processing: Processing

    @property
    def width(self) -> int:
        """Columns of the padded prompts."""
        return self.ids.shape[1]

    @property
    def capacity(self) -> int:
        """Columns of the longest text that may come of it."""
        return self.width + self.max_new_tokens

    @property
    def rows(self) -> int:
        """How many prompts there are."""
        return len(self.pads)


def read_request(
    model: LoopedForCausalLM,
    input_ids: Tokens | Any,
    max_new_tokens: int,
    *,
    num_loops: int | None = None,
    attention_mask: Tensor | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
    streamer: BaseStreamer | None = None,
    tie_margin: float | None = None,
) -> tuple[Request, Sampling]:
    """Return what a call asks for, and how its tokens are chosen.

    Raises `InputError` for depths, lengths, prompts or options that do not fit the model or each other. Warns of
    settings in the model's generation_config that are not followed, and of padding that cannot be told from text.
    """
    K = model.num_loops if num_loops is None else num_loops
    if K < 1:
        raise InputError(f"num_loops is {K}: run at least 1 loop.")
    _check_attention(model)
    check_sampling(temperature, top_k, top_p)
    ids, given = _check_ids(model, input_ids, attention_mask, max_new_tokens)
    named = {"eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    sampled = None if temperature is None else {"temperature": float(temperature), "top_k": top_k, "top_p": top_p}
    processing, mask = read_settings(model, ids, given, max_new_tokens, named, sampled)
    told = "the mask" if given is not None else "the mask that pad_token_id makes, without an attention_mask,"
    mask, pads = _padding(model, ids, mask, max_new_tokens, told)
    if streamer is not None and len(pads) > 1:
        raise InputError(f"streaming is for one prompt at a time, not {len(pads)}.")
    eos = model.generation_config.eos_token_id if eos_token_id is None else eos_token_id
    ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
    pad = model.generation_config.pad_token_id if pad_token_id is None else pad_token_id
    request = Request(
        ids=ids,
        mask=mask,
        pads=pads,
        max_new_tokens=max_new_tokens,
        num_loops=K,
        ends=frozenset(ends),
        pad=pad if pad is not None else next(iter(ends), 0),
        streamer=streamer,
        processing=processing,
    )
    if given is None and mask is None:
        _warn_of_unmasked_padding(request)
    return request, Greedy(processing, tie_margin) if sampled is None else Sampled(processing, generator)


def _warn_of_unmasked_padding(request: Request) -> None:
    """Say so where rows begin with a padding token that also ends texts: without a mask it is read as text."""
    if request.pad not in request.ends:
        return
    first = (request.ids == request.pad).long().cumprod(1).sum(1)
    if int(first.max()) > 1 or int(first.max()) > int(first.min()):
        warnings.warn(
            f"a prompt begins with token {request.pad}, which fills and ends rows, and there is no attention_mask: it "
            "is read as text, as generate does. Give the mask if it is padding.",
            stacklevel=4,
        )


def _check_attention(model: LoopedForCausalLM) -> None:
    """Raise `InputError` for an attention implementation that cannot take the masks of unequal rows."""
    name = attention_implementation(model.config)
    if name not in ("sdpa", "eager"):
        raise InputError(
            f"attention implementation '{name}' cannot decode rows of unequal length: "
            "load the model with attn_implementation='sdpa'."
        )


def _check_ids(
    model: LoopedForCausalLM, input_ids: Tokens | Any, attention_mask: Tensor | None, max_new_tokens: int
) -> tuple[Tokens, Int[Tensor, "batch width"] | None]:
    """Return prompts and mask where the model is, the mask in whole numbers.

    Raises `InputError` if they are empty, of ids that the model does not have, or of another form.
    """
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.dtype != torch.long or not len(input_ids):
        found = f"{input_ids.dtype} {list(input_ids.shape)}" if isinstance(input_ids, Tensor) else type(input_ids)
        raise InputError(f"prompts {found}: give a LongTensor (batch, width) of ids.")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise InputError(f"the mask is {list(attention_mask.shape)} and the prompts are {list(input_ids.shape)}.")
    if attention_mask is not None and not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
        raise InputError("the mask has other values than 0 (padding) and 1 (a token): give one or the other.")
    if input_ids.shape[1] == 0:
        raise InputError("the prompt is empty: give at least one token.")
    least, most = (int(x) for x in input_ids.aminmax())
    if least < 0 or most >= model.config.vocab_size:
        raise InputError(f"ids go from {least} to {most}, and the model knows 0 to {model.config.vocab_size - 1}.")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}: ask for at least 1 new token.")
    device = execution_device(model)
    mask = None if attention_mask is None else attention_mask.to(device).long()
    return input_ids.to(device), mask


def _padding(
    model: LoopedForCausalLM, ids: Tokens, mask: Int[Tensor, "batch width"] | None, max_new_tokens: int, told: str
) -> tuple[Int[Tensor, "batch width"] | None, list[int]]:
    """Return the mask, where there is padding, and the columns of padding of every row.

    Raises `InputError` if a prompt is all padding, not padded on its left alone, or too long for the model's positions.
    """
    batch, width = ids.shape
    if mask is not None and bool(mask.all()):
        mask = None
    pads = [0] * batch if mask is None else (width - mask.sum(1)).tolist()
    if max(pads) == width:
        raise InputError("the prompt is empty: give at least one token.")
    if mask is not None and bool((mask.diff(dim=1) < 0).any()):
        raise InputError(f"{told} hides tokens after a prompt's start: pad on the left alone (padding_side='left').")
    model.check_positions(width - min(pads) + max_new_tokens - 1)  # the last new token is never fed
    return mask, pads
