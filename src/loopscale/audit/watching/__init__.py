"""Watching: the monitor that reads a model while it trains, and the controller that steers by its readings."""
