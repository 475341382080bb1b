"""Former place of `loopscale.display`'s progress."""

from loopscale.display import Track, untracked

__all__ = ["Track", "untracked"]
