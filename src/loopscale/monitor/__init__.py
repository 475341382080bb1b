"""Monitor: the loops of any torch module while it trains, and a check of a configuration's loops before it does."""

from loopscale.monitor.alarms import Alarm, Thresholds
from loopscale.monitor.statistics import Reading
from loopscale.monitor.watch import Cost, Watch, watch

__all__ = ["Alarm", "Cost", "Reading", "Thresholds", "Watch", "watch"]
