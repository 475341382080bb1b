"""The loss of a looped model: supervision of its exits, penalties, head. Pure functions of states and labels."""

from loopscale.objective.all_exits import exits_loss
from loopscale.objective.head import (
    IGNORED,
    fused_cross_entropy,
    logit_cross_entropy,
    logit_losses,
    next_tokens,
    plain_weight,
    token_cross_entropy,
)
from loopscale.objective.losses import ExitLoss, Gate, GateLoss, Labels, Loss, Losses, PenaltyLoss, Reading
from loopscale.objective.onward import OneMoreLoop
from loopscale.objective.passes import Passes, compiled_passes, differentiate
from loopscale.objective.penalties import (
    PENALTIES,
    JacobianPenalty,
    NormPenalty,
    Penalty,
    Weighted,
    penalties_of,
    set_coefficient,
)
from loopscale.objective.supervision import (
    SUPERVISIONS,
    Annealed,
    BatchExitGate,
    ExitGate,
    PerLoop,
    Supervision,
    Terminal,
    build_supervision,
    exit_distribution,
)

__all__ = [
    "IGNORED",
    "PENALTIES",
    "SUPERVISIONS",
    "Annealed",
    "BatchExitGate",
    "ExitGate",
    "ExitLoss",
    "Gate",
    "GateLoss",
    "JacobianPenalty",
    "Labels",
    "Loss",
    "Losses",
    "NormPenalty",
    "OneMoreLoop",
    "Passes",
    "Penalty",
    "PenaltyLoss",
    "PerLoop",
    "Reading",
    "Supervision",
    "Terminal",
    "Weighted",
    "build_supervision",
    "compiled_passes",
    "differentiate",
    "exit_distribution",
    "exits_loss",
    "fused_cross_entropy",
    "logit_cross_entropy",
    "logit_losses",
    "next_tokens",
    "penalties_of",
    "plain_weight",
    "set_coefficient",
    "token_cross_entropy",
]
