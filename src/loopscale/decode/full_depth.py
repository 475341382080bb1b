"""Full-depth decoding on this package's cache: the baseline of the faster ways."""

from typing import Unpack

import torch
from torch import nn

from loopscale.decode.request import DecodeStats, Generation, Options, Writer, read_request
from loopscale.decode.session import Session, enough_threads
from loopscale.model.native import require_native
from loopscale.stepping import Tokens


@torch.inference_mode()
def full_depth_generate(
    model: nn.Module, input_ids: Tokens, max_new_tokens: int, **options: Unpack[Options]
) -> Generation:
    """Decode with `num_loops` loops (default: the model's) for every token. `generate` without its generality.

    `options` are those of `Options`. Raises `InputError` for depths, lengths or prompts that do not fit.
    """
    native = require_native(model, "decoding on the per-loop cache")
    request, sampling = read_request(native, input_ids, max_new_tokens, **options)
    writer, K = Writer(request), request.num_loops
    session = Session(native, request.pads, request.capacity, K, exits=[K - 1])
    tokens, seen = request.ids, 0
    with enough_threads(native):
        while True:
            window = session.window(tokens, seen)
            z = session.run(session.embed(tokens, window), window, 0, K)
            if seen == 0:
                session.passes = session.token_loops = 0
            seen += tokens.shape[1]
            tokens = sampling.choose(session.read(z, window, K - 1)[:, -1], writer.prefixes)
            chosen = tokens.flatten().tolist()
            for row in writer.unfinished:
                writer.write(row, chosen[row : row + 1])
            if not writer.unfinished:
                counts = DecodeStats(passes=session.passes, token_loops=session.token_loops * request.rows)
                return writer.finish(counts)
