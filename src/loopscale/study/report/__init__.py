"""Report of a study: its claims, the advice that follows, and the files, the page among them."""

from .advising import Advice, Point, advice
from .claims import claim_interval, claim_value, claims_table
from .merging import merged
from .page_content import sentences
from .writing import PAGE, judged, render, report_command, write_report

__all__ = [
    "PAGE",
    "Advice",
    "Point",
    "advice",
    "claim_interval",
    "claim_value",
    "claims_table",
    "judged",
    "merged",
    "render",
    "report_command",
    "sentences",
    "write_report",
]
