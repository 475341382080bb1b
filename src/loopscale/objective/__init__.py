"""The loss of a looped model: supervision of its exits, norm penalty, head. Pure functions of states and labels."""

from loopscale.objective.exits import exits_loss
from loopscale.objective.head import IGNORED, fused_cross_entropy, logit_cross_entropy, token_cross_entropy
from loopscale.objective.passes import Passes, compiled_passes, differentiate
from loopscale.objective.penalty import norm_penalty
from loopscale.objective.supervision import (
    ExitGate,
    PerLoop,
    Supervision,
    Terminal,
    build_supervision,
    exit_distribution,
)

__all__ = [
    "IGNORED",
    "ExitGate",
    "Passes",
    "PerLoop",
    "Supervision",
    "Terminal",
    "build_supervision",
    "compiled_passes",
    "differentiate",
    "exit_distribution",
    "exits_loss",
    "fused_cross_entropy",
    "logit_cross_entropy",
    "norm_penalty",
    "token_cross_entropy",
]
