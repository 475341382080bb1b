"""Write on from a prompt: at any depth, by self-speculation (same text, faster), or with early exit.

The text goes to standard output as it is written; --stats adds what it took on standard error.
"""

import sys
import time

from jsonargparse import Namespace

from loopscale.cli.parser import Parser
from loopscale.errors import InputError


def add_arguments(parser: Parser) -> None:
    """Add model, prompt, sampling and the two faster ways."""
    parser.add_argument("model", type=str, help="folder or hub id of a looped model")
    parser.add_argument("--prompt", type=str, required=True, help="text to go on from")
    parser.add_argument("--loops", type=int | None, default=None, help="depth to run (default: the model's)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="how far to write")
    parser.add_argument("--temperature", type=float | None, default=None, help="sample (default: greedy)")
    parser.add_argument("--top_k", type=int | None, default=None, help="sample among the k likeliest")
    parser.add_argument("--top_p", type=float | None, default=None, help="sample among the likeliest of this mass")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling")
    parser.add_argument("--speculate", action="store_true", help="draft with an early exit, verify at full depth")
    parser.add_argument("--draft_loops", type=int, default=1, help="loops that draft")
    parser.add_argument("--draft_tokens", type=int, default=8, help="longest draft")
    parser.add_argument("--early_exit", type=str | None, default=None, help="RULE.json that `evaluate` calibrated")
    parser.add_argument(
        "--exit_slots",
        type=str,
        default="recompute",
        help="cache of the loops a token left out: recompute (exact) or share_last",
    )
    parser.add_argument("--stats", action="store_true", help="print speed, accepted drafts and executed loops")


def run(args: Namespace) -> int:
    """Load, write, count."""
    if args.speculate and args.early_exit is not None:
        raise InputError("--speculate keeps the text of full depth, --early_exit changes it: choose one.")
    if not args.prompt:
        raise InputError("the prompt is empty: give some text with --prompt.")
    import torch
    from transformers import TextStreamer

    from loopscale.adapters import load_model, load_tokenizer_of
    from loopscale.decode import decode_text

    model = load_model(args.model)
    tokenizer = load_tokenizer_of(args.model)
    generation = decode_text(
        model,
        tokenizer(args.prompt, return_tensors="pt").input_ids,
        args.max_new_tokens,
        num_loops=args.loops,
        draft=(args.draft_loops, args.draft_tokens) if args.speculate else None,
        rule=_load_rule(args.early_exit) if args.early_exit is not None else None,
    )
    return 0
