"""Page: one HTML file that needs nothing else and asks for nothing; its frame, style, tables and charts."""

from loopscale.display.page.frame import PageFigure, render

__all__ = ["PageFigure", "render"]
