"""What each exit is worth, what it costs, and when to stop: depth curve, frontier, calibrated halting."""

from loopscale.batches import Batch
from loopscale.evaluate.calibrated_rule import CalibratedRule
from loopscale.evaluate.calibration import (
    Calibration,
    HaltingResult,
    MeanLoops,
    RelativePerplexity,
    Target,
    calibrate,
    evaluate_halting,
)
from loopscale.evaluate.cost import (
    Speed,
    counted_flops,
    measure_speed,
    measure_speeds,
    token_flops,
)
from loopscale.evaluate.curve import DepthCurve, ExitPoint, SafeRange, depth_curve, depth_curves
from loopscale.evaluate.frontier import (
    Difference,
    FrontierPoint,
    Measured,
    differences,
    dominated,
    frontier,
    interpolated,
)
from loopscale.evaluate.halting_rules import RULES, Exit, HaltingRule, Level, is_gated, rule_named
from loopscale.evaluate.halting_run import HaltingTime, Leaving, halted_exits, halted_logits, time_halting
from loopscale.evaluate.halting_trace import ExitTrace, trace_exits
from loopscale.evaluate.oracle import OraclePoint, oracle
from loopscale.evaluate.scoring import sliding_windows
from loopscale.evaluate.statistics import Interval
from loopscale.evaluate.summary import describe_depth, measure_depth, run_depth, run_halting
from loopscale.facts import TokenFlops
from loopscale.model import formula_flops

__all__ = [
    "RULES",
    "Batch",
    "CalibratedRule",
    "Calibration",
    "DepthCurve",
    "Difference",
    "Exit",
    "ExitPoint",
    "ExitTrace",
    "FrontierPoint",
    "HaltingResult",
    "HaltingRule",
    "HaltingTime",
    "Interval",
    "Leaving",
    "Level",
    "MeanLoops",
    "Measured",
    "OraclePoint",
    "RelativePerplexity",
    "SafeRange",
    "Speed",
    "Target",
    "TokenFlops",
    "calibrate",
    "counted_flops",
    "depth_curve",
    "depth_curves",
    "describe_depth",
    "differences",
    "dominated",
    "evaluate_halting",
    "formula_flops",
    "frontier",
    "halted_exits",
    "halted_logits",
    "interpolated",
    "is_gated",
    "measure_depth",
    "measure_speed",
    "measure_speeds",
    "oracle",
    "rule_named",
    "run_depth",
    "run_halting",
    "sliding_windows",
    "time_halting",
    "token_flops",
    "trace_exits",
]
