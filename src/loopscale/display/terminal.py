"""Consoles: where tables and progress go, whatever the terminal, pipe or code page."""

import codecs
import sys
from typing import Any, NoReturn, final

from rich.console import Console

PIPE_WIDTH = 160  # columns of a table in a file or log; a terminal knows its own
NEAREST = {"‖": "|", "×": "x", "±": "+-", "–": "-", "—": "-", "…": "...", "σ": "s", "✓": "y", "✗": "n", "−": "-"}
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
    """rich's console, whose broken pipe the command line tells as every other one, not by status 1."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise what a plain print would have raised."""
        raise BrokenPipeError


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
