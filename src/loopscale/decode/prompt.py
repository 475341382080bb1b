"""What every decoder here is asked: prompts, where they end, and what is handed back."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Tokens


@dataclass(frozen=True)
class Prompts:
    """Left-padded prompts: (batch, width) tokens, and how many columns are padding in every row."""

    ids: Tokens
    mask: Int[Tensor, "batch width"] | None
    pads: list[int]

    @property
    def width(self) -> int:
        """Columns of the padded prompts."""
        return self.ids.shape[1]


def check_prompts(
    model: LoopedForCausalLM, input_ids: Tokens | Any, attention_mask: Tensor | None, max_new_tokens: int
) -> Prompts:
    """Return the prompts.

    Raises `InputError` if one is empty, not padded on its left alone, too long for the model's positions, of ids that
    the model does not have, or of another form.
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
    return Prompts(input_ids.to(model.device), mask, pads)


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


class Writer:
    """Collects the new tokens of every row until the end of sequence or `max_new_tokens`."""

    def __init__(
        self,
        model: LoopedForCausalLM,
        prompts: Prompts,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        streamer: BaseStreamer | None = None,
    ) -> None:
        if streamer is not None and len(prompts.pads) > 1:
            raise InputError(f"streaming is for one prompt at a time, not {len(prompts.pads)}.")
        eos = model.generation_config.eos_token_id if eos_token_id is None else eos_token_id
        self.eos = set(eos) if isinstance(eos, list) else {eos} - {None}
        pad = model.generation_config.pad_token_id if pad_token_id is None else pad_token_id
        self.pad = pad if pad is not None else min(self.eos, default=0)
        self.prompts = prompts
        self.limit = max_new_tokens
        self.streamer = streamer
        self.new: list[list[int]] = [[] for _ in prompts.pads]
        self.done = [False] * len(self.new)
        self.began = time.perf_counter()
        if streamer is not None:
            streamer.put(prompts.ids.cpu())

    @property
    def unfinished(self) -> list[int]:
        """Rows that go on."""
        return [row for row, done in enumerate(self.done) if not done]

    def write(self, row: int, tokens: list[int]) -> None:
        """Append tokens to a row as far as they count."""
        before = len(self.new[row])
        for token in tokens:
            if self.done[row]:
                break
            self.new[row].append(token)
            self.done[row] = token in self.eos or len(self.new[row]) == self.limit
        if self.streamer is not None and len(self.new[row]) > before:
            self.streamer.put(torch.tensor(self.new[row][before:]))

    def finish(self, stats: DecodeStats) -> Generation:
        """Return everything written."""
        if self.streamer is not None:
            self.streamer.end()
        stats.seconds = time.perf_counter() - self.began
        stats.rows = len(self.new)
        stats.new_tokens = sum(map(len, self.new))
        longest = max(map(len, self.new))
        rows = [new + [self.pad] * (longest - len(new)) for new in self.new]
        return Generation(torch.cat([self.prompts.ids, torch.tensor(rows, device=self.prompts.ids.device)], 1), stats)
