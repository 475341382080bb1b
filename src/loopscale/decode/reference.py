"""Reference text that self-speculation must reproduce: cached greedy decoding at full depth, one token per step."""

from typing import final

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from loopscale.decode.request import Request
from loopscale.model import LoopedForCausalLM


@final
class SingleSteps:
    """Decides one token exactly as `generate` does: same shapes, same cache, same kernels, hence the same rounding.

    A product of one row and a product of several may round differently, and a near tie then falls the other way. The
    steps already taken are kept, so that all such questions of a call together cost at most one plain decoding.
    """

    def __init__(self, model: LoopedForCausalLM, request: Request) -> None:
        self.model = model
        self.request = request
        self.cache = DynamicCache()
        self.fed: list[list[int]] = []  # tokens fed after the prompt, one per row
        self.logits: list[Tensor] = []  # (batch, vocab) after the prompt and after every token fed

    def decide(self, row: int, new_tokens: list[list[int]]) -> int:
        """Return the greedy token of `row` after its `new_tokens`; other rows run along with what is known of them."""
        if not self.logits:
            self._feed(self.request.ids)
        wanted = new_tokens[row]
        agreeing = 0
        while agreeing < min(len(wanted), len(self.fed)) and self.fed[agreeing][row] == wanted[agreeing]:
            agreeing += 1
        self._forget(len(self.fed) - agreeing if agreeing < len(wanted) else 0)
        for t in range(len(self.fed), len(wanted)):
            column = [tokens[t] if t < len(tokens) else 0 for tokens in new_tokens]
            self._feed(torch.tensor(column, device=self.request.ids.device)[:, None])
            self.fed.append(column)
        return int(self.request.processing(self.logits[len(wanted)][row : row + 1], [(row, wanted)]).argmax())

    def _forget(self, steps: int) -> None:
        if steps:
            self.cache.crop(-steps)
            del self.fed[-steps:], self.logits[-steps:]

    def _feed(self, ids: Tensor) -> None:
        mask, positions = None, None
        if self.request.mask is not None:
            seen = self.request.ids.new_ones(len(ids), len(self.fed) + (1 if self.logits else 0))
            mask = torch.cat([self.request.mask, seen], 1)
            positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self.model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            cache=self.cache,
            num_loops=self.request.num_loops,
            logits_to_keep=1,
        )
        self.logits.append(output.logits[:, -1].float())
