"""Messages of the command line: jsonargparse's in the words of someone who types, and places that cannot be written."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from jsonargparse import Namespace

from loopscale.errors import InputError
from loopscale.storage import check_writable

KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "list": "a list"}


def in_words(message: str, options: Collection[str]) -> str:
    """Return the message as one line, with a guess where an option is not one of the `options`."""
    words = " ".join(message.split()).rstrip(".")
    plain = re.sub(r'Parser key "([\w.]+)"', r"--\1", words)
    return _wrong_value(words) or _missing(words, options) or _unknown(words, options) or plain


def no_such_option(name: str, options: Collection[str], spellings: Collection[str] = ()) -> str:
    """Return that there is no such option, and the one that may be meant by it or by one of its `spellings`."""
    guesses = [guess for word in spellings or [name] for guess in get_close_matches(word, options, n=1)]
    return f"there is no option {name}" + (f"; did you mean {guesses[0]}?" if guesses else "")


def _wrong_value(words: str) -> str | None:
    """Say what one option wants and what it was given."""
    found = re.match(r'Parser key "([\w.]+)"(?: element \d+)?: (.*)', words)
    if found is None:
        return None
    name, rest = found.groups()
    wanted = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", rest)
    given = re.findall(r"(?:Got|Given) value: (.*?)(?= - Expected| Given value|$)", rest)
    if not wanted or not given:
        return None
    kinds = [KINDS.get(kind, kind) if kind else _choice(choices) for kind, choices in wanted if kind != "NoneType"]
    return f"--{name}: expected {' or '.join(dict.fromkeys(kinds))}, got {given[-1]}"


def _choice(choices: str) -> str:
    return f"one of {choices}" if "," in choices else choices


def _missing(words: str, options: Collection[str]) -> str | None:
    lacking = words.partition("the following arguments are required: ")[2]
    if not lacking:
        return None
    names = [f"--{name}" if f"--{name}" in options else name.upper() for name in lacking.split(", ")]
    return f"{', '.join(names)} must be given"


def _unknown(words: str, options: Collection[str]) -> str | None:
    """Name an option that does not exist, and the one that may be meant."""
    names = re.findall(r"--[\w.-]+", words) if "nrecognized" in words else []
    names += [f"--{name}" for name in re.findall(r"Option '([\w.]+)' is not accepted", words)]
    names += [
        f"--{'.'.join(pair)}" for pair in re.findall(r"Group '([\w.]+)' does not accept option '([\w.]+)'", words)
    ]
    return no_such_option(names[0], options, names) if names else None


def check_outputs(args: Namespace, *folders: str) -> None:
    """Raise `InputError`, before the work, if --json or one of the options that name `folders` cannot be written to."""
    if args.json is not None:
        if Path(args.json).is_dir():
            raise InputError(f"--json {args.json} is a folder: name a file.")
        check_writable("--json", Path(args.json).parent)
    for name in folders:
        if args[name] is not None:
            check_writable(f"--{name}", Path(args[name]))
