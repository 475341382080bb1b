"""Former place of `loopscale.display`'s progress."""

from loopscale.display import progress_bar as progress_when_slow

__all__ = ["progress_when_slow"]
