"""Former place of `loopscale.display`'s numbers."""

from loopscale.display import mean_and_spread, number

__all__ = ["mean_and_spread", "number"]
