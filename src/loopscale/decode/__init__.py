"""Decoding on the per-loop cache: self-speculation across loops, early exit, and how many loops keep a cache."""

from loopscale.decode.budget import shared_cache
from loopscale.decode.early_exit import EXIT_SLOTS, EarlyExit, ExitRule, early_exit_generate
from loopscale.decode.full_depth import full_depth_generate
from loopscale.decode.lane import Lane
from loopscale.decode.prompt import DecodeStats, Generation
from loopscale.decode.speculative import speculative_generate

__all__ = [
    "EXIT_SLOTS",
    "DecodeStats",
    "EarlyExit",
    "ExitRule",
    "Generation",
    "Lane",
    "early_exit_generate",
    "full_depth_generate",
    "shared_cache",
    "speculative_generate",
]
