"""Halting: when a token may stop looping. Rules, their calibration, the bound for all of them, and what it saves."""

from loopscale.halting.bound import OraclePoint, oracle
from loopscale.halting.calibrated import CalibratedRule, StoredRule, fingerprint
from loopscale.halting.calibration import (
    Calibration,
    HaltingResult,
    calibrate,
    evaluate_halting,
)
from loopscale.halting.comparison import HaltingReport, best_savers, run_halting
from loopscale.halting.halted_run import HaltingTime, Leaving, halted_exits, halted_logits, time_halting
from loopscale.halting.rules import RULES, Exit, HaltingRule, Level, is_gated, rule_named
from loopscale.halting.targets import MeanLoops, RelativePerplexity, Target
from loopscale.halting.trace import ExitTrace, trace_exits

__all__ = [
    "RULES",
    "CalibratedRule",
    "Calibration",
    "Exit",
    "ExitTrace",
    "HaltingReport",
    "HaltingResult",
    "HaltingRule",
    "HaltingTime",
    "Leaving",
    "Level",
    "MeanLoops",
    "OraclePoint",
    "RelativePerplexity",
    "StoredRule",
    "Target",
    "best_savers",
    "calibrate",
    "evaluate_halting",
    "fingerprint",
    "halted_exits",
    "halted_logits",
    "is_gated",
    "oracle",
    "rule_named",
    "run_halting",
    "time_halting",
    "trace_exits",
]
