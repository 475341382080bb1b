"""Sampling: how tokens are chosen from logits, greedily or at random, and how a deeper exit judges a draft."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.decode.settings import Prefix, Processing
from loopscale.errors import InputError
from loopscale.system.precision import widened

# The two largest logits are a near tie within this many rounding steps (of the dtype, at the largest logit). A pass
# over several tokens moved logits by at most 10 steps in float32 and 2 in bfloat16 (docs/decode.md).
TIE_MARGIN = 64.0
TIE_MARGIN_16_BIT = 8.0
COLDEST = 1e-6  # logits divided by less may be infinite
SAYS_NOTHING = (
    "the logits are all alike, so that what is written says nothing: weights are zero, or the state is so large that a "
    "norm returns zeros; take an earlier checkpoint, or train anew."
)


@dataclass(slots=True)
class Proposal:
    """A token that an exit chose.

    gap: between the exit's two largest logits, in nats: how sure it is. unsure: another batch shape might choose
    another token (a greedy near tie). distribution: what the token was drawn from, where it was drawn.
    """

    token: int
    gap: float = 0.0
    unsure: bool = False
    distribution: Float[Tensor, " vocab"] | None = None


class Sampling(ABC):
    """Chooses tokens, and judges drafts so that the text is the one full depth would have written.

    Every token is chosen from logits to which the settings of the call were applied, given the tokens before it.
    """

    def __init__(self, processing: Processing) -> None:
        self.processing = processing
        self._looked = False

    def look(self, logits: Float[Tensor, "rows vocab"]) -> None:
        """Warn where the first logits of a call tell no token from another."""
        if not self._looked and all_alike(logits):
            warnings.warn(SAYS_NOTHING, stacklevel=4)
        self._looked = True

    @abstractmethod
    def choose(self, logits: Float[Tensor, "batch vocab"], prefixes: Sequence[Prefix]) -> Int[Tensor, "batch 1"]:
        """Choose a token per row."""

    @abstractmethod
    def judge(
        self, logits: Float[Tensor, "rows vocab"], drafts: Sequence[Proposal | None], prefixes: Sequence[Prefix]
    ) -> list[Proposal]:
        """Return what an exit proposes, per row: the draft's token where it stands, another one where it does not.

        A row without a draft gets a token of its own.
        """


@final
class Greedy(Sampling):
    """The likeliest token. A draft stands if it is that.

    `tie_margin` is the gap between the two largest logits, in units of the rounding step at the largest logit, up to
    which a row counts as unsure (default: by the dtype of the logits).
    """

    def __init__(self, processing: Processing, tie_margin: float | None = None) -> None:
        if tie_margin is not None and tie_margin < 0:
            raise InputError(f"tie_margin is {tie_margin}: it is a distance, give 0 or more.")
        super().__init__(processing)
        self.tie_margin = tie_margin

    def choose(self, logits: Float[Tensor, "batch vocab"], prefixes: Sequence[Prefix]) -> Int[Tensor, "batch 1"]:
        """Take the largest."""
        largest = self.processing(logits.to(widened(logits.dtype)), prefixes).max(-1, keepdim=True)
        require_numbers(largest.values.flatten().tolist())
        self.look(logits)
        return largest.indices

    def judge(
        self, logits: Float[Tensor, "rows vocab"], drafts: Sequence[Proposal | None], prefixes: Sequence[Prefix]
    ) -> list[Proposal]:
        """Take the largest, whatever the draft was."""
        dtype = torch.finfo(logits.dtype)
        margin = self.tie_margin
        if margin is None:
            margin = TIE_MARGIN_16_BIT if dtype.bits == 16 else TIE_MARGIN
        processed = self.processing(logits.to(widened(logits.dtype)), prefixes)
        top, tokens = processed.topk(min(2, logits.shape[-1]), dim=-1)
        best = top.tolist()
        require_numbers(values[0] for values in best)
        self.look(logits)
        largest = torch.linalg.vector_norm(logits, torch.inf, dim=-1).to(processed.dtype)
        if self.processing.lists:  # what multiplies logits multiplies their rounding; what forbids them is infinite
            finite = processed.masked_fill(processed.isinf(), 0)
            largest = torch.maximum(largest, torch.linalg.vector_norm(finite, torch.inf, dim=-1))
        chosen = []
        for token, values, size in zip(tokens.tolist(), best, largest.tolist(), strict=True):
            gap = values[0] - values[-1]
            chosen.append(Proposal(token[0], gap, gap <= margin * dtype.eps * size))
        return chosen


@final
class Sampled(Sampling):
    """Sampling from what the settings of the call leave of the distribution, with rejection of drafts.

    A draft x from q stands with probability min(1, p(x) / q(x)); else a token is drawn from the positive part of
    p - q, normalised. The result is distributed as p exactly (Leviathan et al. 2023, arXiv 2211.17192, appendix A),
    and so it can be the draft of a deeper exit in turn.
    """

    def __init__(self, processing: Processing, generator: torch.Generator | None) -> None:
        super().__init__(processing)
        self.generator = generator

    def probabilities(
        self, logits: Float[Tensor, "batch vocab"], prefixes: Sequence[Prefix]
    ) -> Float[Tensor, "batch vocab"]:
        """Return the distribution that is sampled from, in float32 or better."""
        distribution = self.processing(logits.to(widened(logits.dtype)), prefixes).softmax(-1)
        require_numbers(distribution[:, 0].tolist())
        self.look(logits)
        return distribution

    def choose(self, logits: Float[Tensor, "batch vocab"], prefixes: Sequence[Prefix]) -> Int[Tensor, "batch 1"]:
        """Draw one."""
        return self._draw(self.probabilities(logits, prefixes))

    def judge(
        self, logits: Float[Tensor, "rows vocab"], drafts: Sequence[Proposal | None], prefixes: Sequence[Prefix]
    ) -> list[Proposal]:
        """Keep or replace each draft by rejection sampling."""
        p = self.probabilities(logits, prefixes)
        nothing = torch.zeros_like(p[0])
        q = torch.stack([nothing if d is None or d.distribution is None else d.distribution for d in drafts])
        tokens = torch.tensor([0 if d is None else d.token for d in drafts], device=p.device)[:, None]
        # without a draft q is 0 everywhere: its ratio is not below 1 either, so such a row is told apart
        drafted = torch.tensor([d is not None for d in drafts], device=p.device)
        ratio = (p.gather(1, tokens) / q.gather(1, tokens)).squeeze(1)
        uniform = torch.rand(ratio.shape, dtype=ratio.dtype, device=ratio.device, generator=self.generator)
        stands = drafted & (uniform < ratio)
        residual = (p - q).clamp_min(0)
        left = residual.sum(-1, keepdim=True) > 0  # p = q up to rounding: a rejection cannot happen
        drawn = torch.where(stands[:, None], tokens, self._draw(torch.where(left, residual, p))).flatten()
        top = p.topk(min(2, p.shape[-1]), dim=-1).values.log()
        gaps = (top[:, 0] - top[:, -1]).tolist()
        return [
            Proposal(token, gap, False, distribution)
            for token, gap, distribution in zip(drawn.tolist(), gaps, p, strict=True)
        ]

    def _draw(self, weights: Float[Tensor, "rows vocab"]) -> Int[Tensor, "rows 1"]:
        return torch.multinomial(weights, 1, generator=self.generator)


def require_numbers(largest: Iterable[float]) -> None:
    """Raise `InputError` where a row's largest logit is not finite: what would be written then means nothing."""
    if not all(value < math.inf for value in largest):  # NaN is not below it either
        raise InputError(
            "the logits are not finite, so there is no next token: the weights are not, or the state outgrows the "
            "dtype (load the model in float32, or run fewer loops)."
        )


def all_alike(logits: Float[Tensor, "rows vocab"]) -> bool:
    """Return whether no row prefers any token to another; those that are never a token (-inf) aside."""
    if logits.shape[-1] < 2:
        return False
    least = logits.masked_fill(logits == -torch.inf, torch.inf).amin(-1)
    return bool((logits.amax(-1) == least).all())


def check_sampling(temperature: float | None, top_k: int | None, top_p: float | None) -> None:
    """Raise `InputError` for options out of range, and for sampling options without a temperature."""
    if temperature is None and (top_k is not None or top_p is not None):
        raise InputError("top_k and top_p are for sampling: give a temperature too.")
    if temperature is not None and not COLDEST <= temperature < math.inf:
        raise InputError(f"temperature is {temperature}: sample from {COLDEST:g} on, or leave it out for greedy.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}: keep at least 1 token, or leave it out.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}: give a share above 0 and up to 1, or leave it out.")
