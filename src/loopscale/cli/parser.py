"""jsonargparse's parser, with errors as `InputError` and defaults that a preset sets before the rest is read."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from loopscale.errors import InputError

Defaults = Callable[[Namespace], Mapping[str, Any]]


class Parser(ArgumentParser):
    """Parses one command. `defaults_from`, if set, maps a first reading of the arguments to the second's defaults."""

    defaults_from: Defaults | None = None

    def read(self, words: Sequence[str]) -> Namespace:
        """Parse the words of a command line; raises `InputError` with one sentence."""
        if self.defaults_from is not None and not {"-h", "--help"} & set(words):
            first = [word for word in words if not word.startswith("--print_config")]
            self.set_defaults(dict(self.defaults_from(self.parse_args(first))))
        return self.parse_args(list(words))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` in place of a usage text."""
        raise InputError(
            f"{self._in_words(message)} (loopscale {self.prog.split()[-1]} --help lists the options)"
        ) from ex

    def _in_words(self, message: str) -> str:
        """Return the parser's message as one line, with a guess for an option that does not exist."""
        words = " ".join(message.split())
        names = re.findall(r"--[\w.-]+", words) if "nrecognized" in words or "does not accept" in words else []
        known = [option for action in self._actions for option in action.option_strings]
        guesses = [guess for name in names for guess in get_close_matches(name, known, n=1)]
        return f"{words}; did you mean {guesses[0]}?" if guesses else words.rstrip(".")
