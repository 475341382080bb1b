"""`loopscale COMMAND ...`: find the command, parse its arguments, turn bad input into one sentence and status 2.

Only a command that runs imports torch and transformers, which takes seconds: help, the version and a mistyped word are
answered before.
"""

import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from threading import current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from loopscale import __version__
from loopscale.errors import FailedElsewhere, InputError, unknown

if TYPE_CHECKING:
    from jsonargparse import Namespace

# name -> one line of help; its options are in `loopscale.cli.options`, what it does in `loopscale.cli.<name>`
COMMANDS = {
    "train": "train one looped model on your text or a known corpus",
    "reproduce": "train the paper's conditions and judge its claims",
    "audit": "say which state variables a model's loss controls",
    "check": "say what a configuration's state does in a few steps, at several sizes",
    "convert": "turn a looped model made elsewhere into a folder of ours",
    "retrofit": "turn a pretrained model into a looped one",
    "export": "write a model as a GGUF file for llama.cpp and Ollama",
    "evaluate": "say how good every exit is, what it costs, and when to stop early",
    "generate": "write on from a prompt, at any depth, faster by self-speculation",
    "lens": "show a text token by token and loop by loop, as a page",
    "plan": "say what a training takes of a device, how long it is and what it costs",
    "report": "write tables, figures and the page of a study anew, or of several as one",
}
SHARING = ("evaluate", "audit")  # commands that share their batches out among the processes of a launcher
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 bad input, 130 interrupted, or the command's own."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else "--help"
    _prepare_streams()
    with _heard_interruptions() as heard:
        try:
            status = _run(name, words[1:])
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return _say(name, "interrupted", INTERRUPTED)
        except Exception as error:
            return _say(name, "interrupted", INTERRUPTED) if heard else _told(name, error)


@contextmanager
def _heard_interruptions() -> Iterator[list[bool]]:
    """Yield a list that holds something once Ctrl-C was pressed: some libraries catch whatever is raised there."""
    heard: list[bool] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(True)
        signal.default_int_handler(number, frame)

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler and current_thread() is main_thread()
    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _told(name: str, error: Exception) -> int:
    """Say what an error means and return its status; one that is a fault of this program is raised again."""
    if isinstance(error, FailedElsewhere):
        return 2
    if isinstance(error, InputError):
        return _say(name, str(error))
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it leaves
        return BROKEN_PIPE
    if isinstance(error, OSError) and error.filename is not None:
        return _say(name, f"cannot read or write {error.filename}: {error.strerror}.")
    if isinstance(error, OSError) and error.errno in FULL:
        return _say(name, f"cannot write any more: {error.strerror}.")
    raise error


def _run(name: str, words: Sequence[str]) -> int:
    if name in {"-h", "--help"}:
        print(usage())
        return 0
    if name in {"-V", "--version"}:
        print(f"loopscale {__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("option" if name.startswith("-") else "command", name, {*COMMANDS, "--help", "--version"})
    _require_words(words)
    _require_place()
    if not _several():
        args = _read(name, words)
        if name in SHARING:
            from loopscale.system.launcher import check_ranks

            check_ranks()  # refuses what is half set, and the processes of MPI, which would each measure and write
        return _begun(name, args)
    from loopscale.processes import agreed, shared

    with shared():
        args = agreed(lambda: _read_in_one_of_several(name, words))
        if name in SHARING:
            return _begun(name, args)
    return _begun(name, args)  # training has the processes to itself


def _require_words(words: Sequence[str]) -> None:
    """Raise `InputError` for words that no terminal can give, which a caller in Python may: no file has such a name."""
    for word in words:
        try:
            if b"\0" not in os.fsencode(word):
                continue
        except UnicodeEncodeError:
            pass
        raise InputError(f"{word!r} holds NUL or half of a character, which no name or text can: leave it out.")


def _several() -> bool:
    """Return whether a launcher started several processes; torch comes in only where one says something."""
    if not os.environ.get("WORLD_SIZE"):
        return False
    from loopscale.system.launcher import processes_started

    return processes_started() > 1


def _read_in_one_of_several(name: str, words: Sequence[str]) -> "Namespace":
    """Return a command's arguments. Raises `InputError` for a command that each process would run whole."""
    if name not in {*SHARING, "train"}:
        raise InputError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: only train, {' and '.join(SHARING)} share their work out among "
            f"processes; start {name} without a launcher, or unset WORLD_SIZE."
        )
    return _read(name, words)


def _read(name: str, words: Sequence[str]) -> "Namespace":
    from loopscale.cli.options import parser_of

    return parser_of(name, words).read(words)


def _begun(name: str, args: "Namespace") -> int:
    """Run a command, and return its exit status."""
    from transformers.utils import logging

    from loopscale.display import inert_logs
    from loopscale.system.allocator import keep_freed_memory

    logging.disable_progress_bar()  # of loading weights; a run's own stays
    keep_freed_memory()
    inert_logs()
    with _each_once("loopscale.data.corpora"):  # of several models, read from one text
        return import_module(f"loopscale.cli.{name}").run(args)


def _require_place() -> None:
    """Raise `InputError` where the folder that names are meant from is gone."""
    try:
        os.getcwd()  # noqa: PTH109 (imports of the libraries ask so)
    except OSError as error:
        raise InputError(f"the folder you are in cannot be used ({error.strerror}): change to another.") from error


@contextmanager
def _each_once(name: str) -> Iterator[None]:
    """Let a logger say each sentence once meanwhile."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        sentence, before = record.getMessage(), len(said)
        said.add(sentence)
        return len(said) > before

    logger = logging.getLogger(name)
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _say(name: str, sentence: str, status: int = 2) -> int:
    """Print what is wrong on standard error and return the status."""
    if not sentence.isprintable():
        from loopscale.display import inert

        sentence = inert(sentence)
    command = f" {name}" if name in COMMANDS else ""
    print(f"loopscale{command}: {sentence}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Let the console show what it can: a character it lacks is replaced, a stream that is closed is nowhere."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 (until the end)
        elif not str(stream.encoding or "utf").lower().startswith("utf"):  # a StringIO has none
            from loopscale.display.terminal import lenient  # the tables' library comes with it

            lenient(stream)
        elif stream.errors == "strict" and hasattr(stream, "reconfigure"):  # half a surrogate, in a file's name
            stream.reconfigure(errors="backslashreplace")


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<10} {help_line}" for name, help_line in COMMANDS.items()]
    last = "loopscale COMMAND --help tells the options of one, loopscale --version the version."
    return "\n".join(["usage: loopscale COMMAND [options]", "", *lines, "", last])
