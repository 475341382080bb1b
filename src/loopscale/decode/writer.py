"""Writer of a decoder's text: new tokens row by row until each ends, and what is handed back with what it took."""

import time
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from loopscale.decode.request import Request
from loopscale.decode.settings import Prefix


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
    def prefixes(self) -> list[Prefix]:
        """Every row and its new tokens."""
        return list(enumerate(self.new))

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
