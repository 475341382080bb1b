"""jsonargparse's parser, with errors as `InputError` and defaults that a preset sets before the rest is read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from loopscale.cli.wording import in_words
from loopscale.errors import InputError

HELP = ("-h", "--help")
Defaults = Callable[[Namespace], Mapping[str, Any]]


class Parser(ArgumentParser):
    """Parses one command. `defaults_from`, if set, maps a first reading of the arguments to the second's defaults."""

    defaults_from: Defaults | None = None

    def read(self, words: Sequence[str]) -> Namespace:
        """Parse the words of a command line; raises `InputError` with one sentence."""
        if self.defaults_from is not None:
            first = [word for word in words if word not in HELP and not word.startswith("--print_config")]
            self.set_defaults(dict(self.defaults_from(self._parse(first))))
        return self._parse(words)

    def _parse(self, words: Sequence[str]) -> Namespace:
        try:
            return self.parse_args(list(words))
        except (AttributeError, TypeError, UnicodeDecodeError) as error:  # what jsonargparse makes of odd files
            if not any(word.startswith("--config") for word in words):
                raise
            raise InputError(f"--config is not a YAML file of these options ({error}).") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` in place of a usage text."""
        options = [option for action in self._actions for option in action.option_strings]
        raise InputError(
            f"{in_words(message, options)} (loopscale {self.prog.split()[-1]} --help lists the options)"
        ) from ex
