"""Monitor: the loops of any torch module while it trains, and a check of a configuration's loops before it does."""

from loopscale.monitor.alarms import Alarm, Thresholds
from loopscale.monitor.coordinate_check import CheckPoint, LoopCheck, RateVerdict, loop_check
from loopscale.monitor.coordinate_check_display import check_figure, check_table
from loopscale.monitor.loop_sums import Reading
from loopscale.monitor.watcher import Cost, Watch, watch

__all__ = [
    "Alarm",
    "CheckPoint",
    "Cost",
    "LoopCheck",
    "RateVerdict",
    "Reading",
    "Thresholds",
    "Watch",
    "check_figure",
    "check_table",
    "loop_check",
    "watch",
]
