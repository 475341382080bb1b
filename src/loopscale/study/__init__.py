"""The study: from trained conditions to claims, tables, figures and a report."""

from .claims import CLAIMS, Claim, judged
from .report import render, write_report
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
    "save",
    "write_report",
]
