"""Former place of the tables in `loopscale.evaluate.display`."""

from loopscale.evaluate.display import depth_table, difference_table, frontier_table, safe_sentence
from loopscale.halting.display import halting_table, halting_time_table

__all__ = [
    "depth_table",
    "difference_table",
    "frontier_table",
    "halting_table",
    "halting_time_table",
    "safe_sentence",
]
