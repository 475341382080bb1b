"""How tokens are chosen from logits: greedy, or sampled with rejection. A draft is judged by the same object."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from loopscale.errors import InputError
from loopscale.stepping import Logits

# The two largest logits are a near tie within this many rounding steps (of the dtype, at the largest logit). A pass
# over several tokens moved logits by at most 10 steps in float32 and 2 in bfloat16 (docs/decode.md).
TIE_MARGIN = 64.0
TIE_MARGIN_16_BIT = 8.0


@dataclass(frozen=True)
class Draft:
    """One drafted token per row, how probable the drafting exit finds its likeliest token, and its distribution."""

    tokens: Int[Tensor, "batch 1"]
    confidence: Float[Tensor, " batch"]
    probabilities: Float[Tensor, "batch vocab"]


@dataclass(frozen=True)
class Judgement:
    """Per drafted token whether it stays; per position (one more than drafts) the token that stands there if not.

    `unsure` marks positions whose outcome could be another in another batch shape (greedy near ties).
    """

    accepted: Bool[Tensor, "batch drafts"]
    instead: Int[Tensor, "batch places"]
    unsure: Bool[Tensor, "batch places"]


class Choice(ABC):
    """Chooses tokens, and judges drafts so that the text is the one full depth would have written."""

    @abstractmethod
    def draft(self, logits: Float[Tensor, "batch vocab"]) -> Draft:
        """Choose a draft token per row from the logits of the drafting exit."""

    @abstractmethod
    def judge(self, logits: Logits, drafts: list[Draft]) -> Judgement:
        """Compare the drafts with the full-depth logits of their positions and of one more."""


@final
class Greedy(Choice):
    """The likeliest token. A draft stays if it is full depth's likeliest.

    `tie_margin` is the gap between the two largest logits, in units of the rounding step at the largest logit, up to
    which a position counts as unsure (default: by the dtype of the logits).
    """

    def __init__(self, tie_margin: float | None = None) -> None:
        if tie_margin is not None and tie_margin < 0:
            raise InputError(f"tie_margin is {tie_margin}: it is a distance, give 0 or more.")
        self.tie_margin = tie_margin

    def draft(self, logits: Float[Tensor, "batch vocab"]) -> Draft:
        """Take the largest."""
        probabilities = logits.float().softmax(-1)
        confidence, tokens = probabilities.max(-1)
        return Draft(tokens[:, None], confidence, probabilities)

    def judge(self, logits: Logits, drafts: list[Draft]) -> Judgement:
        """Keep what equals the argmax."""
        top, tokens = logits.topk(2, dim=-1)
        dtype = torch.finfo(logits.dtype)
        margin = self.tie_margin
        if margin is None:
            margin = TIE_MARGIN_16_BIT if dtype.bits == 16 else TIE_MARGIN
        unsure = top[..., 0] - top[..., 1] <= margin * dtype.eps * logits.abs().amax(-1)
        best = tokens[..., 0]
        accepted = _joined(drafts, best) == best[:, :-1]
        return Judgement(accepted, best, unsure)


@final
class Sampled(Choice):
    """Sampling at a temperature, optionally among the likeliest (`top_k`, `top_p`), with rejection of drafts.

    A draft x from q stays with probability min(1, p(x) / q(x)); else the token is drawn from the positive part of
    p - q, normalised. The result is distributed as p exactly (Leviathan et al. 2023, arXiv 2211.17192, appendix A).
    """

    def __init__(
        self, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
    ) -> None:
        if temperature <= 0:
            raise InputError(f"temperature is {temperature}: sample with a positive one, or leave it out for greedy.")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k is {top_k}: keep at least 1 token, or leave it out.")
        if top_p is not None and not 0 < top_p <= 1:
            raise InputError(f"top_p is {top_p}: give a share above 0 and up to 1, or leave it out.")
        self.generator = generator
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
        if top_k is not None:
            self.warpers.append(TopKLogitsWarper(top_k))
        if top_p is not None:
            self.warpers.append(TopPLogitsWarper(top_p))

    def probabilities(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """Return the distribution that is sampled from, in float32 or better."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        no_prefix = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)  # these warpers read none
        return self.warpers(no_prefix, wide).softmax(-1)

    def draft(self, logits: Float[Tensor, "batch vocab"]) -> Draft:
        """Draw one."""
        probabilities = self.probabilities(logits)
        return Draft(self._draw(probabilities), probabilities.amax(-1), probabilities)

    def judge(self, logits: Logits, drafts: list[Draft]) -> Judgement:
        """Keep or replace each by rejection sampling."""
        p = self.probabilities(logits.flatten(0, 1)).view(logits.shape)
        instead = p.clone()
        tokens = _joined(drafts, p.argmax(-1))
        accepted = torch.zeros_like(tokens, dtype=torch.bool)
        if drafts:
            q = torch.stack([draft.probabilities for draft in drafts], 1)
            ratio = (p[:, :-1] / q).gather(-1, tokens[..., None]).squeeze(-1)  # q > 0 where it was drawn
            uniform = torch.rand(ratio.shape, dtype=ratio.dtype, device=ratio.device, generator=self.generator)
            accepted = uniform < ratio
            residual = (p[:, :-1] - q).clamp_min(0)
            left = residual.sum(-1, keepdim=True) > 0  # p = q up to rounding: a rejection cannot happen
            instead[:, :-1] = torch.where(left, residual, p[:, :-1])
        drawn = self._draw(instead.flatten(0, 1)).view(instead.shape[:-1])
        return Judgement(accepted, drawn, torch.zeros_like(drawn, dtype=torch.bool))

    def _draw(self, weights: Float[Tensor, "rows vocab"]) -> Int[Tensor, "rows 1"]:
        return torch.multinomial(weights, 1, generator=self.generator)


def build_choice(
    temperature: float | None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    tie_margin: float | None = None,
) -> Choice:
    """Return greedy choice, or sampling where there is a temperature.

    Raises `InputError` for options out of range, and for sampling options without a temperature.
    """
    if temperature is not None:
        return Sampled(temperature, top_k, top_p, generator)
    if top_k is not None or top_p is not None:
        raise InputError("top_k and top_p are for sampling: give a temperature too.")
    return Greedy(tie_margin)


def _joined(drafts: list[Draft], like: Int[Tensor, "batch places"]) -> Int[Tensor, "batch drafts"]:
    """Return the drafted tokens side by side."""
    return torch.cat([draft.tokens for draft in drafts], 1) if drafts else like[:, :0]
