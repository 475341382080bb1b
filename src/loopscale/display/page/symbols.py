"""Symbols: marks of points as paths, by matplotlib's letters, so that a file and a page show the same."""

import math
from collections.abc import Callable, Mapping

Shape = Callable[[float, float, float], str]


def symbol(marker: str, x: float, y: float, size: float) -> str:
    """Return the path of a mark around a point, `size` from its middle to its edge."""
    return SHAPES.get(marker, _circle)(x, y, size)


def _circle(x: float, y: float, r: float) -> str:
    return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"


def _polygon(corners: int, turn: float, grow: float, inner: float = 1.0) -> Shape:
    """Return a polygon with a corner at `turn` (of a round, from the top), a star where `inner` is less than one."""

    def shape(x: float, y: float, r: float) -> str:
        steps = corners if inner == 1.0 else 2 * corners
        places = []
        for step in range(steps):
            angle = 2 * math.pi * (step / steps + turn)
            reach = r * grow * (inner if steps != corners and step % 2 else 1.0)
            places.append(f"{x + reach * math.sin(angle):.1f} {y - reach * math.cos(angle):.1f}")
        return f"M{'L'.join(places)}z"

    return shape


def _bars(*ends: tuple[float, float]) -> Shape:
    """Return strokes through the middle, each from an end to the opposite one."""
    return lambda x, y, r: "".join(f"M{x + r * a:.1f} {y + r * b:.1f}L{x - r * a:.1f} {y - r * b:.1f}" for a, b in ends)


SHAPES: Mapping[str, Shape] = {
    ".": lambda x, y, r: _circle(x, y, 0.6 * r),
    "o": _circle,
    "s": _polygon(4, 1 / 8, 1.3),
    "D": _polygon(4, 0, 1.4),
    "d": _polygon(4, 0, 1.3),
    "^": _polygon(3, 0, 1.4),
    ">": _polygon(3, 1 / 4, 1.4),
    "v": _polygon(3, 1 / 2, 1.4),
    "P": _polygon(4, 0, 1.5, 0.5),
    "X": _polygon(4, 1 / 8, 1.5, 0.5),
    "*": _polygon(5, 0, 1.6, 0.5),
    "|": _bars((0, 1.6)),
    "x": _bars((1, 1), (1, -1)),
}
