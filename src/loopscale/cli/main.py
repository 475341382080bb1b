"""`loopscale COMMAND ...`: find the command, parse its arguments, turn bad input into one sentence and status 2."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from loopscale.allocator import keep_freed_memory
from loopscale.errors import InputError, unknown

# name -> (module, one line of help); imported only when its command runs: Trainer, page and parser take seconds
COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("loopscale.cli.train", "train one looped model on your text or a known corpus"),
    "reproduce": ("loopscale.cli.reproduce", "train the paper's conditions and judge its claims"),
    "audit": ("loopscale.cli.audit", "say which state variables a model's loss controls"),
    "convert": ("loopscale.cli.convert", "turn a looped model made elsewhere into a folder of ours"),
    "evaluate": ("loopscale.cli.evaluate", "say how good every exit is, what it costs, and when to stop early"),
    "generate": ("loopscale.cli.generate", "write on from a prompt, at any depth, faster by self-speculation"),
    "report": ("loopscale.cli.report", "write tables, figures and the page of a finished study anew"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 bad input, 130 interrupted, or the command's own."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help"}:
        print(usage())
        return 0
    name, *rest = words
    try:
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        from transformers.utils import logging

        from loopscale.cli.parser import Parser

        logging.disable_progress_bar()  # of loading weights; a run's own stays
        module = import_module(COMMANDS[name][0])
        parser = Parser(prog=f"loopscale {name}", description=module.__doc__, allow_abbrev=False)
        module.add_arguments(parser)
        keep_freed_memory()
        return module.run(parser.read(rest))
    except InputError as error:
        print(f"loopscale {name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"loopscale {name}: cannot read or write {error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"loopscale {name}: interrupted", file=sys.stderr)
        return 130


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<10} {help_line}" for name, (_, help_line) in COMMANDS.items()]
    return "\n".join(
        ["usage: loopscale COMMAND [options]", "", *lines, "", "loopscale COMMAND --help tells the options of one."]
    )
