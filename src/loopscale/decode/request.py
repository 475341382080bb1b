"""Request to a decoder: prompts, how much to write at which depth, where a text ends; and what is handed back.

Every decoder takes the same options, so they are written, checked and explained once, here.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.decode.sampling import Sampling, build_sampling
from loopscale.errors import InputError
from loopscale.hf import attention_implementation
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Tokens


class Options(TypedDict, total=False):
    """Keywords of every decoder.

    num_loops: depth (default: the model's). attention_mask: 1 for tokens, 0 for padding on the left, (batch, seq).
    temperature, top_k, top_p, generator: sampling, where there is a temperature; else the likeliest token is taken.
    eos_token_id, pad_token_id: where a text ends and what fills it up (default: the generation configuration's).
    streamer: told of the tokens of a lone prompt as they come.
    """

    num_loops: int | None
    attention_mask: Int[Tensor, "batch seq"] | None
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

    `ends` are the tokens that end a text, `pad` fills it up afterwards.
    """

    ids: Tokens
    mask: Int[Tensor, "batch width"] | None
    pads: list[int]
    max_new_tokens: int
    num_loops: int
    ends: frozenset[int]
    pad: int
    streamer: BaseStreamer | None

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

    Raises `InputError` for depths, lengths, prompts or options that do not fit the model or each other.
    """
    K = model.num_loops if num_loops is None else num_loops
    if K < 1:
        raise InputError(f"num_loops is {K}: run at least 1 loop.")
    _check_attention(model)
    mask, pads = _check_prompts(model, input_ids, attention_mask, max_new_tokens)
    if streamer is not None and len(pads) > 1:
        raise InputError(f"streaming is for one prompt at a time, not {len(pads)}.")
    eos = model.generation_config.eos_token_id if eos_token_id is None else eos_token_id
    ends = frozenset(eos) if isinstance(eos, list) else frozenset({eos} - {None})
    pad = model.generation_config.pad_token_id if pad_token_id is None else pad_token_id
    request = Request(
        ids=input_ids.to(model.device),
        mask=mask,
        pads=pads,
        max_new_tokens=max_new_tokens,
        num_loops=K,
        ends=ends,
        pad=pad if pad is not None else min(ends, default=0),
        streamer=streamer,
    )
    return request, build_sampling(temperature, top_k, top_p, generator, tie_margin)


def _check_attention(model: LoopedForCausalLM) -> None:
    """Raise `InputError` for an attention implementation that cannot take the masks of unequal rows."""
    name = attention_implementation(model.config)
    if name not in ("sdpa", "eager"):
        raise InputError(
            f"attention implementation '{name}' cannot decode rows of unequal length: "
            "load the model with attn_implementation='sdpa'."
        )


def _check_prompts(
    model: LoopedForCausalLM, input_ids: Tokens | Any, attention_mask: Tensor | None, max_new_tokens: int
) -> tuple[Int[Tensor, "batch width"] | None, list[int]]:
    """Return the mask, where there is padding, and the columns of padding of every row.

    Raises `InputError` if a prompt is empty, not padded on its left alone, too long for the model's positions, of ids
    that the model does not have, or of another form.
    """
    if input_ids.ndim != 2 or input_ids.dtype != torch.long or not len(input_ids):
        raise InputError(f"prompts {input_ids.dtype} {list(input_ids.shape)}: give a LongTensor (batch, width) of ids.")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise InputError(f"the mask is {list(attention_mask.shape)} and the prompts are {list(input_ids.shape)}.")
    batch, width = input_ids.shape
    least, most = (int(x) for x in input_ids.aminmax()) if width else (0, 0)
    if least < 0 or most >= model.config.vocab_size:
        raise InputError(f"ids go from {least} to {most}, and the model knows 0 to {model.config.vocab_size - 1}.")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}: ask for at least 1 new token.")
    mask = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.to(model.device).long()
    pads = [0] * batch if mask is None else (width - mask.sum(1)).tolist()
    if width == 0 or max(pads) == width:
        raise InputError("the prompt is empty: give at least one token.")
    if mask is not None and bool((mask.diff(dim=1) < 0).any()):
        raise InputError("the mask hides tokens after a prompt's start: pad on the left alone (padding_side='left').")
    model.check_positions(width - min(pads) + max_new_tokens - 1)  # the last new token is never fed
    return mask, pads


@dataclass
class DecodeStats:
    """What a decoding call did. Counts are after the prompt, which every decoder runs once at full depth.

    seconds: wall time of the whole call, prompt included. passes: applications of the shared stack, one after another
    (what time follows at small batch). token_loops: loops summed over the tokens they ran on, rejected and repeated
    ones and idle places of a pass included, rows of the batch counted one by one. verifications: tokens that full depth
    judged. drafted, accepted: tokens that an earlier exit put on their way, and those of them that full depth
    confirmed. rechecked: greedy choices too close to a tie to trust another batch shape with, decided again by single
    steps.
    """

    rows: int = 1
    new_tokens: int = 0
    seconds: float = 0.0
    passes: int = 0
    token_loops: int = 0
    verifications: int = 0
    drafted: int = 0
    accepted: int = 0
    rechecked: int = 0

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all rows per second of the whole call."""
        return self.new_tokens / self.seconds if self.seconds else 0.0

    @property
    def loops_per_token(self) -> float:
        """Executed loops per new token (the first of each row comes with the prompt)."""
        return self.token_loops / max(1, self.new_tokens - self.rows)

    @property
    def passes_per_token(self) -> float:
        """Sequential applications of the stack per new token of a row."""
        return self.passes * self.rows / max(1, self.new_tokens - self.rows)

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that full depth confirmed."""
        return self.accepted / self.drafted if self.drafted else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios, JSON-able."""
        names = ("tokens_per_second", "loops_per_token", "passes_per_token", "acceptance")
        return asdict(self) | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Generation:
    """Prompts and new tokens, (batch, width + longest), padded after an end of sequence, and what it took."""

    sequences: Int[Tensor, "batch total"]
    stats: DecodeStats


@final
class Writer:
    """Collects the new tokens of every row until one ends it or `max_new_tokens` are there."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.new: list[list[int]] = [[] for _ in request.pads]
        self.done = [False] * request.rows
        self.began = time.perf_counter()
        if request.streamer is not None:
            request.streamer.put(request.ids.cpu())

    @property
    def unfinished(self) -> list[int]:
        """Rows that go on."""
        return [row for row, done in enumerate(self.done) if not done]

    def write(self, row: int, tokens: list[int]) -> None:
        """Append tokens to a row as far as they count."""
        request, new = self.request, self.new[row]
        before = len(new)
        for token in tokens:
            if self.done[row]:
                break
            new.append(token)
            self.done[row] = token in request.ends or len(new) == request.max_new_tokens
        if request.streamer is not None and len(new) > before:
            request.streamer.put(torch.tensor(new[before:]))

    def finish(self, stats: DecodeStats) -> Generation:
        """Return everything written."""
        request = self.request
        if request.streamer is not None:
            request.streamer.end()
        stats.seconds = time.perf_counter() - self.began
        stats.rows = len(self.new)
        stats.new_tokens = sum(map(len, self.new))
        longest = max(map(len, self.new))
        rows = [new + [request.pad] * (longest - len(new)) for new in self.new]
        return Generation(torch.cat([request.ids, torch.tensor(rows, device=request.ids.device)], 1), stats)
