"""Consoles: where tables and progress go, whatever the terminal, pipe or code page."""

import codecs
import logging
import sys
from typing import Any, NoReturn, final

from rich.console import Console
from rich.text import Text

from loopscale.display.text import inert

PIPE_WIDTH = 160  # columns of a table in a file or log; a terminal knows its own
NEAREST = {
    "‖": "|",
    "×": "x",
    "±": "+-",
    "–": "-",
    "—": "-",
    "…": "...",
    "σ": "s",
    "✓": "y",
    "✗": "n",
    "−": "-",
    **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*#@", strict=True)),
}
HANDLER = "loopscale.nearest"


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """Return the console of stdout or stderr; a character that its encoding lacks becomes the nearest one.

    Outside a terminal tables are `PIPE_WIDTH` wide. `quiet` says nothing at all.
    """
    stream = sys.stderr if stderr else sys.stdout
    lenient(stream)
    at_terminal = stream is not None and stream.isatty()
    return _Console(stderr=stderr, quiet=quiet or stream is None, width=None if at_terminal else PIPE_WIDTH)


@final
class _Console(Console):
    """rich's console, whose broken pipe the command line tells as every other one, not by status 1.

    Text is shown as it is, on one line: it may hold names from anywhere, in which a terminal or rich would see orders.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print text without markup and control characters, and tables as they are."""
        super().print(*(_shown(entry) for entry in objects), **{**options, "markup": False})

    def on_broken_pipe(self) -> NoReturn:
        """Raise what a plain print would have raised."""
        raise BrokenPipeError


def inert_logs() -> None:
    """Let what is logged reach consoles and files on one line, without what a terminal would obey."""
    loggers = [logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict)]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    for handler in (*handlers, *([logging.lastResort] if logging.lastResort else [])):
        handler.addFilter(_spell_out)


def _spell_out(record: logging.LogRecord) -> bool:
    record.msg, record.args = inert(record.getMessage()), None
    return True


def _shown(entry: Any) -> Any:
    return Text(inert(entry)) if isinstance(entry, str | Text) else entry


def lenient(stream: Any) -> None:
    """Let a stream write what its encoding has no characters for: code pages and the C locale lack some of ours."""
    reconfigure = getattr(stream, "reconfigure", None)
    # in the C locale Python lets bytes through that it cannot read, and no more
    narrow = "surrogateescape" if not str(getattr(stream, "encoding", "utf")).lower().startswith("utf") else "strict"
    if reconfigure is not None and getattr(stream, "errors", None) in {"strict", narrow}:
        reconfigure(errors=HANDLER)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(NEAREST.get(character, "?") for character in lost), error.end


codecs.register_error(HANDLER, _nearest)
