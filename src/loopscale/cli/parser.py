"""Parser: jsonargparse's, with errors as `InputError` and defaults that a preset sets before the rest is read.

What is wrong is found where it is found: at the option that refuses its value, at the key that no option has. None of
the sentences is made of the words of a library, so that a newer one cannot change them.
"""

from argparse import Action
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, final, get_args, get_origin

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, get_loader
from yaml import YAMLError

from loopscale.errors import InputError
from loopscale.storage import check_writable, check_yaml, require_no_stream

HELP = ("-h", "--help")
Defaults = Callable[[Namespace], Mapping[str, Any]]
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
PRIVATE = ("_check_type", "_load_config")  # where jsonargparse's actions take a value, and a group a mapping


@final
class WrongValue(TypeError):
    """What an option cannot take, told by the option; jsonargparse hands a TypeError on to `Parser.error`."""


class Parser(ArgumentParser):
    """Parses one command. `defaults_from`, if set, maps a first reading of the arguments to the second's defaults."""

    defaults_from: Defaults | None = None

    def read(self, words: Sequence[str]) -> Namespace:
        """Parse the words of a command line; raises `InputError` with one sentence."""
        self.refuse_unknown(words)
        self._watch_values()
        if self.defaults_from is not None:
            first = [word for word in words if word not in HELP and not word.startswith("--print_config")]
            self.set_defaults(dict(self.defaults_from(self._parse(first))))
        return self._parse(words)

    def refuse_unknown(self, words: Sequence[str], more: Collection[str] = ()) -> None:
        """Raise `InputError` for a word that is an option, and neither one of this parser nor of `more`.

        What follows an option and a dot is a key of its value, which the option itself checks.
        """
        known = {*self._option_string_actions, *more}
        for word in words[: words.index("--") if "--" in words else None]:
            name = word.partition("=")[0]
            if not name.startswith("--") or any(char.isspace() for char in name) or name in known:
                continue
            if not any(name.startswith(f"{option}.") for option in known if "." in option):
                raise InputError(self._with_help(_no_such_option(name, known)))

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Check what was read. Raises `InputError` for a key of no option, and where an argument lacks."""
        try:
            super().validate(namespace, *args, **kwargs)
        except KeyError as error:
            keys = list(namespace.keys())  # a method with arguments of its own: no dict
            strange = next((key for key in keys if not self._takes(key)), str(error))
            sentence = _no_such_option(f"--{strange}", self._option_string_actions)
            raise InputError(self._with_help(sentence)) from error
        except TypeError as error:
            needed = [action for action in self._actions if action.required and namespace.get(action.dest) is None]
            if not needed or _told(error):
                raise
            names = [f"--{action.dest}" if action.option_strings else action.dest.upper() for action in needed]
            raise InputError(self._with_help(f"{', '.join(names)} must be given")) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` in place of a usage text."""
        sentence = _told(ex) or " ".join(message.split()).rstrip(".")
        raise InputError(self._with_help(sentence)) from ex

    def _parse(self, words: Sequence[str]) -> Namespace:
        try:
            args = self.parse_args(list(words))
        except (AttributeError, TypeError) as error:  # what jsonargparse makes of odd files
            if not any(word.startswith("--config") for word in words):
                raise
            raise InputError(f"--config is not a YAML file of these options ({error}).") from error
        for name, value in args.items():
            if any("\0" in text for text in _texts(value)):
                raise InputError(f"--{name} holds a NUL character, which no name takes: leave it out.")
        return args

    def _takes(self, key: str) -> bool:
        """Return whether a key is one of an option, of its value, or of a group of options."""
        taken = (action.dest for action in self._actions)
        return any(key == dest or key.startswith(f"{dest}.") for dest in taken if dest not in (self.groups or ()))

    def _watch_values(self) -> None:
        """Let every option say itself what it cannot take."""
        for action in self._actions:
            for name in PRIVATE:
                take = getattr(action, name, None)
                if take is not None and not hasattr(take, "__wrapped__"):
                    setattr(action, name, _told_by(action, take))

    def _with_help(self, sentence: str) -> str:
        return f"{sentence} (loopscale {self.prog.split()[-1]} --help lists the options)"


@final
class ConfigFile(ActionConfigFile):
    """`--config FILE`, or the configuration itself as text; what is no mapping of options is told in a sentence."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Add the options of the file to those that were read."""
        check_yaml(values, "--config")  # where it is the configuration itself
        if not isinstance(_inline(values), dict):
            read_document(Path(values))
        super().__call__(parser, cfg, values, option_string)


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file. Raises `InputError` where there is none."""
    require_no_stream(path)
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text, str(path))
        document = get_loader("yaml")(text)  # JSON is YAML, and 1e-3 a number
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise InputError(f"{path} holds no configuration: give fields of a model, or a run with a `model` section.")
    return document


def check_outputs(args: Namespace, *folders: str) -> None:
    """Raise `InputError`, before the work, if --json, --report or one of `folders` cannot be written to."""
    for name in ("json", "report"):
        if (path := args.get(name)) is not None:
            if Path(path).is_dir():
                raise InputError(f"--{name} {path} is a folder: name a file.")
            check_writable(f"--{name}", Path(path).parent)
    for name in folders:
        if args[name] is not None:
            check_writable(f"--{name}", Path(args[name]))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for pair in value.items() for part in pair for text in _texts(part))
    elif isinstance(value, list | tuple):
        yield from (text for part in value for text in _texts(part))


def _inline(text: str) -> Any:
    try:
        return get_loader("yaml")(text)
    except (YAMLError, ValueError, RecursionError):
        return None


def _no_such_option(name: str, options: Collection[str]) -> str:
    """Return that there is no such option, and the one that may be meant."""
    guesses = get_close_matches(name, options, n=1)
    return f"there is no option {name}" + (f"; did you mean {guesses[0]}?" if guesses else "")


def _told_by(action: Action, take: Callable[..., Any]) -> Callable[..., Any]:
    """Return what takes an option's value, with a sentence of ours where it refuses one."""

    @wraps(take)
    def told(value: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return take(value, *args, **kwargs)
        except (TypeError, ValueError) as error:
            if _told(error):
                raise
            shown = getattr(value, "val", value)  # of a key below the option
            if isinstance(value, list) and action.nargs in ("+", "*"):
                shown = next((one for one in value if _refuses(take, [one], kwargs)), value)
            raise WrongValue(f"--{action.dest}: expected {_expected(action)}, got {shown}") from error

    return told


def _refuses(take: Callable[..., Any], value: Any, kwargs: Mapping[str, Any]) -> bool:
    try:
        take(value, **kwargs)
    except (TypeError, ValueError):
        return True
    return False


def _told(error: BaseException | None) -> str | None:
    """Return what the option said that an error began with, if one did."""
    found = None
    while error is not None:
        found = str(error) if isinstance(error, WrongValue) else found
        error = error.__cause__ or error.__context__
    return found


def _expected(action: Action) -> str:
    hint = getattr(action, "_typehint", None)
    return "its fields" if hint is None else " or ".join(dict.fromkeys(_kinds(hint)))


def _kinds(hint: Any) -> Iterator[str]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif origin is Literal:
        choices = ", ".join(map(repr, get_args(hint)))
        yield f"one of {choices}" if "," in choices else choices
    elif hint is not NoneType:
        yield KINDS.get(origin or hint, "a value of another kind")
