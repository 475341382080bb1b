"""Page: one HTML file that needs nothing else and asks for nothing; its frame, style, tables and charts."""

from loopscale.display.page.frame import PageFigure, render, write_html
from loopscale.display.page.plain import Headline, PagePart, plain_page

__all__ = ["Headline", "PageFigure", "PagePart", "plain_page", "render", "write_html"]
