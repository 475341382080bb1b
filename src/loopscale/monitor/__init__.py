"""Monitor: the loops of any torch module while it trains, and a check of a configuration's loops before it does."""

from loopscale.monitor.alarms import Alarm, Thresholds
from loopscale.monitor.loop_sums import Reading
from loopscale.monitor.watcher import Cost, Watch, watch

__all__ = ["Alarm", "Cost", "Reading", "Thresholds", "Watch", "watch"]
