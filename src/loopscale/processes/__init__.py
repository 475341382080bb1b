"""Processes that a launcher started: work shared out among them, with the results and the failures of one process.

Within `shared()` measurements share their batches out, and every process has all results. Outside, each process is
alone, whoever started it: in a training, a measurement by one process must not wait for the others.
"""

from loopscale.processes.meeting import is_first, shared
from loopscale.processes.sharing_out import agreed, each, first_alone, require_alike

__all__ = ["agreed", "each", "first_alone", "is_first", "require_alike", "shared"]
