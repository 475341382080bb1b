"""What each exit is worth, what it costs, and when to stop: depth curve, frontier, calibrated halting."""

from loopscale.evaluate.halting_rules import RULES, CalibratedRule, Exit, HaltingRule, rule_named

__all__ = ["RULES", "CalibratedRule", "Exit", "HaltingRule", "rule_named"]
