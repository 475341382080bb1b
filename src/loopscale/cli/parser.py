"""jsonargparse's parser, with errors as `InputError` and defaults that a preset sets before the rest is read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from loopscale.cli.wording import in_words
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
        options = [option for action in self._actions for option in action.option_strings]
        raise InputError(
            f"{in_words(message, options)} (loopscale {self.prog.split()[-1]} --help lists the options)"
        ) from ex
