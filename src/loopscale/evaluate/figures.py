"""Former place of the figures in `loopscale.evaluate.display`."""

from pathlib import Path
from typing import Any

from loopscale.display import file_name
from loopscale.display import write_figure as written
from loopscale.evaluate.display import CUT, depth_figure, frontier_figure
from loopscale.halting.display import halting_figure

__all__ = ["CUT", "depth_figure", "frontier_figure", "halting_figure", "write_figure"]


def write_figure(figure: Any, folder: Path, name: str) -> None:
    """Write the figure as PNG and SVG."""
    written(figure, folder / file_name(name))
