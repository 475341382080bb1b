"""Figures: their style, the colours of their lines, and how they are written as PNG and SVG.

matplotlib takes a second to import, so it is imported where something is drawn.
"""

import colorsys
import functools
import io
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from loopscale.display.text import inert

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")
Role = tuple[Hashable, Hashable]

INK = "#24292f"
STYLE = {
    "figure.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "loopscale",
}
# Okabe and Ito's, told apart by colour-blind readers
COLOURS = ("#D55E00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#7F4FC9", "#8C6D31")
GREY = "#7f7f7f"  # of what is no model: a guide, a bound
MARKS = "osD^vP*X"
DASHED = (0, (4, 2))
DASHES: tuple[Any, ...] = ("-", DASHED, (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)))
FAR = 1e5  # a curve whose best value is that many times the lowest of all has nothing to say on their scale


@dataclass(frozen=True)
class Style:
    """Colour and dashes of one line."""

    colour: str
    dashes: Any = "-"

    @property
    def line(self) -> dict[str, Any]:
        """Return matplotlib's properties of a line."""
        return {"color": self.colour, "linestyle": self.dashes}


def fresh_styles(roles: Mapping[str, Role], first: Iterable[Role] = ()) -> dict[str, Style]:
    """Return a style by name: one colour per first part of a role, dashes per second, in the order they come.

    Names with one role share a style; all others differ, however many there are. Roles in `first` come before all.
    """
    order = [*first, *roles.values()]
    colours = {role: colour_of(i) for i, role in enumerate(dict.fromkeys(role for role, _ in order))}
    dashes = {role: DASHES[i % len(DASHES)] for i, role in enumerate(dict.fromkeys(role for _, role in order))}
    return {name: Style(colours[colour], dashes[dash]) for name, (colour, dash) in roles.items()}


def colour_of(place: int) -> str:
    """Return the colour of that place in the order: the palette's, then hues by the golden angle."""
    if place < len(COLOURS):
        return COLOURS[place]
    hue = (place * (math.sqrt(5) - 1) / 2) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.38 + 0.12 * (place % 3), 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def readable_top(curves: Iterable[Sequence[float | None]], factor: float) -> float:
    """Return the value above which a curve leaves the picture, so that one that explodes does not flatten the others.

    It is `factor` times the best value of the curves, the worst of those that are not `FAR` from the lowest; infinite
    where nothing is finite.
    """
    finite = ([y for y in curve if y is not None and math.isfinite(y) and y > 0] for curve in curves)
    best = sorted(min(values) for values in finite if values)
    return factor * max((low for low in best if low <= FAR * best[0]), default=math.inf)


def draw_label(name: str) -> str:
    """Return a name as a label: no mathematics in dollars, and not hidden by a leading underscore."""
    text = inert(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Return a function that draws in the common style."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def write_figure(figure: "Figure", stem: Path) -> str:
    """Write `<stem>.png` and `<stem>.svg`, and return the SVG; equal data gives equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stem.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in letters that the font lacks
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names leave no room for the curves
        svg = to_svg(figure)
        stem.with_name(f"{stem.name}.svg").write_text(svg, encoding="utf-8")
        FigureCanvasAgg(figure).print_png(stem.with_name(f"{stem.name}.png"))
    return svg


@styled
def to_svg(figure: "Figure") -> str:
    """Return the figure as an SVG document without a background of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
