"""Parser: jsonargparse's, with errors as `InputError` and defaults that a preset sets before the rest is read."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from loopscale.cli.messages import in_words, no_such_option
from loopscale.errors import InputError
from loopscale.system.yaml_document import check_yaml

HELP = ("-h", "--help")
Defaults = Callable[[Namespace], Mapping[str, Any]]


def _configs(words: Sequence[str]) -> Iterator[str]:
    """Yield the texts of the files that --config names, those that can be read."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--config":
            with suppress(OSError, ValueError):  # told by who reads it
                yield Path(value if equals else following).read_text(encoding="utf-8")


class Parser(ArgumentParser):
    """Parses one command. `defaults_from`, if set, maps a first reading of the arguments to the second's defaults."""

    defaults_from: Defaults | None = None

    def read(self, words: Sequence[str]) -> Namespace:
        """Parse the words of a command line; raises `InputError` with one sentence."""
        self.refuse_unknown(words)
        for given in _configs(words):
            check_yaml(given, "--config")
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
                raise InputError(self._with_help(no_such_option(name, known)))

    def _parse(self, words: Sequence[str]) -> Namespace:
        try:
            return self.parse_args(list(words))
        except (AttributeError, TypeError, UnicodeDecodeError) as error:  # what jsonargparse makes of odd files
            if not any(word.startswith("--config") for word in words):
                raise
            raise InputError(f"--config is not a YAML file of these options ({error}).") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` in place of a usage text."""
        raise InputError(self._with_help(in_words(message, self._option_string_actions))) from ex

    def _with_help(self, sentence: str) -> str:
        return f"{sentence} (loopscale {self.prog.split()[-1]} --help lists the options)"
