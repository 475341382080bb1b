"""Page of a lens: one HTML file that needs nothing else, and asks for nothing.

Figures travel as typed arrays; text reaches the page as text alone, whatever it spells.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from torch import Tensor

from loopscale.display import inert, spelled
from loopscale.errors import InputError
from loopscale.lens.measure import Lens

HERE = Path(__file__).parent


def render(lens: Lens, title: str = "") -> str:
    """Return the page as HTML. `title` says whose loops they are."""
    style, script = ((HERE / name).read_text(encoding="utf-8").strip() for name in ("lens.css", "lens.js"))
    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=spelled
    )
    return templates.get_template("lens.html.j2").render(
        title=inert(title),
        lens=lens,
        length=len(lens.tokens),
        style=style,
        script=script,
        style_hash=_hash(f"\n{style}\n"),
        script_hash=_hash(f"\n{script}\n"),
        data=_embedded(_data(lens)),
    )


def write_page(lens: Lens, path: str | Path, title: str = "") -> Path:
    """Write the page to a file. Raises `InputError` where it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(lens, title), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error
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


def _embedded(data: Any) -> str:
    """Return JSON in which no HTML parser finds the end of a script."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _hash(source: str) -> str:
    """Return the name under which a policy lets this source run, and nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')}"
