"""Watching: the monitor that reads a model while it trains, and the controller that steers by its readings."""

from loopscale.audit.watching.controller import ScaleController
from loopscale.audit.watching.monitor import ScaleMonitor

__all__ = ["ScaleController", "ScaleMonitor"]
