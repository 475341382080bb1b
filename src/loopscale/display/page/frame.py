"""Frame of a page: templates, style and scripts in one file, and a policy by which nothing else runs or is asked for.

Every text is escaped and inert wherever a template writes it; only markup that this package made is not.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loopscale.display.chart import Chart, remarks
from loopscale.display.numbers import duration, number
from loopscale.display.page.values import chart_data, in_words, values_table
from loopscale.display.page.vector import drawn, swatch
from loopscale.display.table import to_html
from loopscale.display.text import inert
from loopscale.errors import InputError

HERE = Path(__file__).parent
STYLES = ("frame.css", "table.css", "chart.css", "print.css")
SCRIPTS = ("theme.js", "table.js", "chart.js")


@final
@dataclass(frozen=True)
class PageFigure:
    """A chart as a page shows it, with a name that stands once in the page."""

    name: str
    title: str
    caption: str
    chart: Chart


def render(template: str, folder: Path, styles: Sequence[str] = (), scripts: Sequence[str] = (), **values: Any) -> str:
    """Return a page as HTML: a template of `folder` that fills the frame, with styles and scripts of its own there."""
    found = [HERE / name for name in STYLES] + [folder / name for name in styles]
    style = _source(found)
    script = _source([HERE / name for name in SCRIPTS] + [folder / name for name in scripts])
    shared = {"style": Markup(style), "script": Markup(script), "policy": Markup(_policy(style, script))}
    return _templates(folder).get_template(template).render(**shared, **values)


def write_html(path: Path, html: str) -> None:
    """Write a page to a file. Raises `InputError` where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error


def _templates(folder: Path) -> Environment:
    templates = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
    )
    templates.filters.update(number=number, duration=duration, lines=_lines, json=_embedded, remarks=remarks)
    templates.filters.update(table=lambda table: Markup(to_html(table)), drawn=drawn, swatch=swatch)
    templates.filters.update(chart_data=chart_data, in_words=in_words, values_table=values_table)
    return templates


def _inert(value: Any) -> Any:
    return value if isinstance(value, Markup) else "–" if value is None else inert(value)


def _lines(text: str) -> Markup:
    """Return text of several lines, each inert."""
    return Markup("\n").join(escape(inert(line)) for line in text.split("\n"))


def _embedded(data: Any) -> Markup:
    """Return JSON in which no HTML parser finds the end of a script."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _source(paths: Sequence[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8").strip() for path in paths)


def _policy(style: str, script: str) -> str:
    """Return the policy that lets these sources run and nothing else, and no request leave."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    """Return the name of what stands between the lines of a tag."""
    digest = hashlib.sha256(f"\n{source}\n".encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
