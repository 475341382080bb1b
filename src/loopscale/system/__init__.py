"""System under a run: process, launcher, machine, and the folders that weights lie in.

Every command starts here, so importing the package brings in neither torch nor transformers.
"""

from loopscale.system.allocator import keep_freed_memory

__all__ = ["keep_freed_memory"]
