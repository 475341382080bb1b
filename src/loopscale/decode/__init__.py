"""Decoding on the per-loop cache: self-speculation across loops, early exit, and how many loops keep a cache."""

from loopscale.decode.cache import LoopCache
from loopscale.decode.prompt import DecodeStats, Generation
from loopscale.decode.speculative import speculative_generate

__all__ = ["DecodeStats", "Generation", "LoopCache", "speculative_generate"]
