"""Lens: a text token by token and loop by loop, what every exit would say and where it stops changing its mind."""

from loopscale.lens.measure import Lens, look
from loopscale.lens.page import render, write_page

__all__ = ["Lens", "look", "render", "write_page"]
