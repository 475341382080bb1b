"""What each exit is worth and what it costs: depth curve, frontier. Names of `loopscale.halting` are handed on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loopscale.batches import Batch
from loopscale.evaluate.cost import (
    Speed,
    counted_flops,
    measure_speed,
    measure_speeds,
    token_flops,
)
from loopscale.evaluate.curve import DepthCurve, DepthReport, ExitPoint, SafeRange, depth_curve, depth_curves
from loopscale.evaluate.depth_report import describe_depth, measure_depth, run_depth
from loopscale.evaluate.fewer_bits import PRECISIONS, PrecisionReport, available, in_precision, measure_precisions
from loopscale.evaluate.pareto import (
    Difference,
    FrontierPoint,
    Measured,
    differences,
    dominated,
    frontier,
    interpolated,
)
from loopscale.evaluate.scoring import sliding_windows
from loopscale.evaluate.statistics import Interval
from loopscale.facts import TokenFlops
from loopscale.model import formula_flops

if TYPE_CHECKING:
    from loopscale.halting import (
        RULES,
        CalibratedRule,
        Calibration,
        Exit,
        ExitTrace,
        HaltingReport,
        HaltingResult,
        HaltingRule,
        HaltingTime,
        Leaving,
        Level,
        MeanLoops,
        OraclePoint,
        RelativePerplexity,
        Target,
        calibrate,
        evaluate_halting,
        halted_exits,
        halted_logits,
        is_gated,
        oracle,
        rule_named,
        run_halting,
        time_halting,
        trace_exits,
    )

__all__ = [
    "PRECISIONS",
    "RULES",
    "Batch",
    "CalibratedRule",
    "Calibration",
    "DepthCurve",
    "DepthReport",
    "Difference",
    "Exit",
    "ExitPoint",
    "ExitTrace",
    "FrontierPoint",
    "HaltingReport",
    "HaltingResult",
    "HaltingRule",
    "HaltingTime",
    "Interval",
    "Leaving",
    "Level",
    "MeanLoops",
    "Measured",
    "OraclePoint",
    "PrecisionReport",
    "RelativePerplexity",
    "SafeRange",
    "Speed",
    "Target",
    "TokenFlops",
    "available",
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
    "in_precision",
    "interpolated",
    "is_gated",
    "measure_depth",
    "measure_precisions",
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


def __getattr__(name: str) -> Any:
    """Return a name of `loopscale.halting`, which builds on this package and was part of it."""
    if name in __all__:
        return getattr(import_module("loopscale.halting"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
