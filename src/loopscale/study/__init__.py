"""The study: from trained conditions to claims, tables, figures and a report."""

from .document import load, save
from .report import judged, render, report_command, write_report
from .results import ConditionResult, Failed, Judgement, Results, Run
from .topic import Claim, Topic
from .topics import TOPICS

__all__ = [
    "TOPICS",
    "Claim",
    "ConditionResult",
    "Failed",
    "Judgement",
    "Results",
    "Run",
    "Topic",
    "judged",
    "load",
    "render",
    "report_command",
    "save",
    "write_report",
]
