"""Page of a lens: one HTML file that needs nothing else, and asks for nothing.

Figures travel as typed arrays; text reaches the page as text alone, whatever it spells.
"""

import base64
from pathlib import Path
from typing import Any

from torch import Tensor

from loopscale.display import page
from loopscale.lens.measure import Lens

HERE = Path(__file__).parent


def render(lens: Lens, title: str = "") -> str:
    """Return the page as HTML. `title` says whose loops they are."""
    facts = {"title": title, "lens": lens, "length": len(lens.tokens), "data": _data(lens)}
    return page.render("lens.html.j2", HERE, styles=("lens.css",), scripts=("lens.js",), **facts)


def write_page(lens: Lens, path: str | Path, title: str = "") -> Path:
    """Write the page to a file. Raises `InputError` where it cannot be written."""
    path = Path(path)
    page.write_html(path, render(lens, title))
    return path


def _data(lens: Lens) -> dict[str, Any]:
    """Return sizes, pieces and arrays: base64 of little-endian numbers, rows of tokens."""
    T, K, top = lens.top.shape
    return {
        "sizes": {"tokens": T, "loops": K, "top": top},
        "pieces": lens.pieces,
        "tokens": _packed(lens.tokens, "<u4"),
        "top": _packed(lens.top, "<u4"),
        "probability": _packed(lens.probability, "<f4"),
        "surprise": _packed(lens.surprise, "<f4"),
        "scale": _packed(lens.scale, "<f4"),
        "turn": _packed(lens.angular_step, "<f4"),
        "settles": _packed(lens.settles, "<u4"),
    }


def _packed(values: Tensor, kind: str) -> str:
    return base64.b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode("ascii")
