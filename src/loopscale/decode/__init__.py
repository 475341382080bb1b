"""Decoding on the per-loop cache: self-speculation across loops, early exit, and how many loops keep a cache."""

from loopscale.decode.cache_sharing import shared_cache
from loopscale.decode.early_exit import EXIT_SLOTS, EarlyExit, ExitRule, early_exit_generate
from loopscale.decode.full_depth import Contrast, full_depth_generate
from loopscale.decode.request import Options
from loopscale.decode.session import Session
from loopscale.decode.speculation.speculative import speculative_generate
from loopscale.decode.writer import DecodeStats, Generation

__all__ = [
    "EXIT_SLOTS",
    "Contrast",
    "DecodeStats",
    "EarlyExit",
    "ExitRule",
    "Generation",
    "Options",
    "Session",
    "early_exit_generate",
    "full_depth_generate",
    "shared_cache",
    "speculative_generate",
]
