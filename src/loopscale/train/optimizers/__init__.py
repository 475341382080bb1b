"""Optimizers of a run beside transformers' own."""

from loopscale.train.optimizers.muon import MuonAndAdamW, matrices_of

__all__ = ["MuonAndAdamW", "matrices_of"]
