"""Full-depth decoding on this package's cache: the baseline of the faster ways, and where exits can be contrasted."""

import warnings
from dataclasses import dataclass
from typing import Any, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscale.decode.request import Options, read_request
from loopscale.decode.session import Session, enough_threads
from loopscale.decode.writer import DecodeStats, Generation, Writer
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native
from loopscale.stepping import Tokens


@final
@dataclass(frozen=True)
class Contrast:
    """Logits of the last loop minus `share` of those of an earlier `loop` (from 1): LoopCD (arXiv 2609.24196).

    What the earlier exit says already counts less. Greedy text of (1 + a) l_K - a l_j, as contrastive decoding is often
    written, is that of the share a / (1 + a).
    """

    share: float
    loop: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.share <= 1:
            raise InputError(f"the share of the contrast is {self.share}: give a number above 0, at most 1.")
        if self.loop < 1:
            raise InputError(f"the loop of the contrast is {self.loop}: loops count from 1.")

    def require_fit(self, model: LoopedForCausalLM, num_loops: int) -> None:
        """Raise `InputError` for a loop that is not before the last; warn of an exit that was not trained."""
        if self.loop >= num_loops:
            raise InputError(f"the contrast is with loop {self.loop} of {num_loops}: give one before the last.")
        k, trained = self.loop - 1, model.trained_loops
        if not (k < trained and model.supervision.supervises(k, trained)):
            warnings.warn(
                f"exit {self.loop} was not trained ({model.supervision.name} supervision of {trained} loops): the "
                "contrast is with what it happens to say.",
                stacklevel=3,
            )

    def __call__(
        self, last: Float[Tensor, "batch vocab"], earlier: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Return the logits that tokens are chosen by; a token that the last exit forbids stays forbidden."""
        return torch.where(last == -torch.inf, last, last - self.share * earlier)


def refuse_contrast(options: Any, decoder: str, why: str) -> None:
    """Take `contrast` out of the options; raises `InputError` where a decoder cannot contrast exits."""
    if options.pop("contrast", None) is not None:
        raise InputError(f"a contrast reads two exits of every token, and {decoder} {why}: use full_depth_generate.")


@torch.inference_mode()
def full_depth_generate(
    model: nn.Module,
    input_ids: Tokens,
    max_new_tokens: int,
    *,
    contrast: Contrast | None = None,
    **options: Unpack[Options],
) -> Generation:
    """Decode with `num_loops` loops (default: the model's) for every token. `generate` without its generality.

    `contrast` chooses tokens by the difference of two exits. `options` are those of `Options`. Raises `InputError` for
    depths, lengths or prompts that do not fit.
    """
    native = require_native(model, "decoding on the per-loop cache")
    request, sampling = read_request(native, input_ids, max_new_tokens, **options)
    writer, K = Writer(request), request.num_loops
    if contrast is not None:
        contrast.require_fit(native, K)
    exits = [K - 1] if contrast is None else [contrast.loop - 1, K - 1]
    session = Session(native, request.pads, request.capacity, K, exits=exits)
    tokens, seen = request.ids, 0
    with enough_threads(native):
        while True:
            window = session.window(tokens, seen)
            states = enumerate(session.states(session.embed(tokens, window), window, 0, K))
            read = [session.read(z, window, k)[:, -1] for k, z in states if k in exits]
            if seen == 0:
                session.passes = session.token_loops = 0
            seen += tokens.shape[1]
            logits = read[-1] if contrast is None else contrast(read[-1], read[0])
            tokens = sampling.choose(logits, writer.prefixes)
            chosen = tokens.flatten().tolist()
            for row in writer.unfinished:
                writer.write(row, chosen[row : row + 1])
            if not writer.unfinished:
                counts = DecodeStats(passes=session.passes, token_loops=session.token_loops * request.rows)
                return writer.finish(counts)
