"""Plain cached decoding at full depth on this package's cache: the honest baseline of the faster ways."""

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.decode.choice import build_choice
from loopscale.decode.lane import Lane, check_attention
from loopscale.decode.prompt import DecodeStats, Generation, Writer, check_prompts
from loopscale.decode.threads import enough_threads
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native
from loopscale.stepping import Tokens


@torch.inference_mode()
def full_depth_generate(
    model: LoopedForCausalLM,
    input_ids: Tokens,
    max_new_tokens: int,
    *,
    num_loops: int | None = None,
    attention_mask: Int[Tensor, "batch seq"] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
    streamer: BaseStreamer | None = None,
) -> Generation:
    """Decode with `num_loops` loops (default: the model's) for every token. `generate` without its generality.

    Raises `InputError` for depths, lengths or prompts that do not fit.
    """
    model = require_native(model, "decoding on the per-loop cache")
    K = model.num_loops if num_loops is None else num_loops
    if K < 1:
        raise InputError(f"num_loops is {K}: run at least 1 loop.")
    check_attention(model)
    prompts = check_prompts(model, input_ids, attention_mask, max_new_tokens)
    choice = build_choice(temperature, top_k, top_p, generator)
    writer = Writer(model, prompts, max_new_tokens, eos_token_id, pad_token_id, streamer)
    lane = Lane(model, prompts.pads, prompts.width + max_new_tokens, K)
    rows = len(prompts.pads)
    tokens, seen = prompts.ids, 0
    with enough_threads(model):
        while True:
            window = lane.window(tokens, seen)
            z = lane.run(lane.embed(tokens, window), window, 0, K)
            if seen == 0:
                lane.passes = lane.token_loops = 0
            seen += tokens.shape[1]
            tokens = choice.choose(model.readout(z[:, -1:], K - 1)[:, -1])
            chosen = tokens.flatten().tolist()
            for row in writer.unfinished:
                writer.write(row, chosen[row : row + 1])
            if not writer.unfinished:
                return writer.finish(DecodeStats(passes=lane.passes, token_loops=lane.token_loops * rows))
