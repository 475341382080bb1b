"""Which state variables does the loss control? Measurements, verdicts and a monitor for any looped model."""

from loopscale.audit.blind_directions import FoundDirection, SearchReport, search
from loopscale.audit.coordinates import Coordinate, direction, mean, scale, unembedding_null, within
from loopscale.audit.findings import AuditReport, CoordinateReport, ScaleStats
from loopscale.audit.interventions import Interventions, intervene
from loopscale.audit.loop_steps import LoopCurves, PowerLaw, loop_curves
from loopscale.audit.measured_card import measured, stated
from loopscale.audit.measurement.checks import check_verbs
from loopscale.audit.procedure import audit
from loopscale.audit.static import static_verdict, static_warning
from loopscale.audit.verdict import Thresholds, Verdict
from loopscale.audit.watching.controller import ScaleController
from loopscale.audit.watching.monitor import ScaleMonitor

__all__ = [
    "AuditReport",
    "Coordinate",
    "CoordinateReport",
    "FoundDirection",
    "Interventions",
    "LoopCurves",
    "PowerLaw",
    "ScaleController",
    "ScaleMonitor",
    "ScaleStats",
    "SearchReport",
    "Thresholds",
    "Verdict",
    "audit",
    "check_verbs",
    "direction",
    "intervene",
    "loop_curves",
    "mean",
    "measured",
    "scale",
    "search",
    "stated",
    "static_verdict",
    "static_warning",
    "unembedding_null",
    "within",
]
