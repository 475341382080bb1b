"""Text too large for memory: files read one after the other, tokenised once by several processes, a shard in each."""

from loopscale.data.sharded.catalogue import Survey, surveyed
from loopscale.data.sharded.documents import Documents, Shard, too_large

__all__ = ["Documents", "Shard", "Survey", "surveyed", "too_large"]
