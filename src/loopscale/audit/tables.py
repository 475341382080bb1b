"""Former place of the tables in `loopscale.audit.display`."""

from loopscale.audit.display import (
    curves_line,
    intervention_table,
    loop_table,
    search_table,
    static_table,
    verdict_table,
)

__all__ = ["curves_line", "intervention_table", "loop_table", "search_table", "static_table", "verdict_table"]
