"""The study: from trained conditions to claims, tables, figures and a report."""

from .claim import Claim
from .claims import CLAIMS, judged
from .report import render, report_command, write_report
from .results import ConditionResult, Judgement, Results, Run, load, save

__all__ = [
    "CLAIMS",
    "Claim",
    "ConditionResult",
    "Judgement",
    "Results",
    "Run",
    "judged",
    "load",
    "render",
    "report_command",
    "save",
    "write_report",
]
