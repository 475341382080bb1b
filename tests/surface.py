"""The surface that others build on: options of commands, public names of packages, signatures of what they name.

It is committed under tests/data/surface, so that a new option or name is a decision. After one:

    python -m tests.surface
"""

import pkgutil
from argparse import SUPPRESS, Action
from collections.abc import Iterator, Sequence
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import griffe

import loopscale
from loopscale.cli.main import COMMANDS, usage
from loopscale.cli.options import parser_of

FOLDER = Path(__file__).parent / "data" / "surface"
PARSERS_OWN = {"_HelpAction", "_ActionPrintConfig", "_ActionConfigLoad"}
MEND = "if this is meant, write it down by: python -m tests.surface"


def surfaces() -> dict[str, str]:
    """Return every file's name and what is to stand in it."""
    commands = {f"{name}.txt": command(name) for name in COMMANDS}
    return {"names.txt": names(), "signatures.txt": signatures(), "loopscale.txt": f"{usage()}\n", **commands}


def names() -> str:
    """Return the public names of every package, one to a line."""
    found = pkgutil.walk_packages(loopscale.__path__, "loopscale.")
    packages = ["loopscale", *(module.name for module in found if module.ispkg)]
    public = [f"{package}.{name}" for package in packages for name in getattr(import_module(package), "__all__", ())]
    return "".join(f"{name}\n" for name in sorted(public))


def signatures() -> str:
    """Return how every public function is called and what every public class has, one to a line."""
    package = griffe.load("loopscale", search_paths=[str(Path(loopscale.__path__[0]).parent)], allow_inspection=False)
    found = {line for name in names().split() for line in _described(name, package)}
    return "".join(f"{line}\n" for line in sorted(found))


def _described(name: str, package: Any) -> Iterator[str]:
    member = package
    for part in name.split(".")[1:]:
        if part not in member.members:  # made at run time, as what a package hands on lazily
            return
        member = member.members[part]
        if member.is_alias:
            member = member.final_target
    if member.is_function:
        yield f"{name}: {member.signature()}"
    elif member.is_class:
        own = (one for one in member.members.values() if one.is_public and not one.is_alias)
        yield from (f"{name}.{one.signature()}" for one in own if one.is_function)
        own = (one for one in member.attributes.values() if one.is_public and one.annotation is not None)
        yield from (f"{name}.{one.name}: {one.annotation}" for one in own)


def command(name: str, words: Sequence[str] = ()) -> str:
    """Return a command's description and its options, in the order of its help."""
    parser = parser_of(name, words)
    ours = [action for action in parser._actions if type(action).__name__ not in PARSERS_OWN]
    return "\n".join([cleandoc(str(parser.description)), *map(_line, ours), ""])


def _line(action: Action) -> str:
    """Return an option on one line, in words that no version of Python or of the parser changes."""
    names = " ".join(action.option_strings) or action.dest.upper()
    kind = _kind(getattr(action, "_typehint", action.type))
    many = {None: "", 0: "", "?": " (optional)", "*": " (any number)", "+": " (one or more)"}.get(action.nargs, "")
    default = "" if action.default in (None, SUPPRESS) else f" = {action.default!r}"
    return f"{names}: {kind}{many}{default}  {' '.join((action.help or '').split())}".rstrip()


def _kind(hint: Any) -> str:
    if hint is None:
        return "flag or text"
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(_kind(part) for part in get_args(hint))
    if hint is NoneType:
        return "none"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in surfaces().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
