"""Train, audit and run looped language models: does your loss control the state you carry?

Importing it registers the model with transformers. The names below, and the subpackages, are imported when they are
first asked for: a command that only has to print its help needs no torch.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from loopscale.errors import InputError
from loopscale.system.registration import register_soon

if TYPE_CHECKING:
    from loopscale.model import LoopedConfig, LoopedForCausalLM
    from loopscale.stepping import Looped, continue_loops, run_loops

__version__ = "0.1.0"
__all__ = ["InputError", "Looped", "LoopedConfig", "LoopedForCausalLM", "continue_loops", "run_loops"]

_HOMES = {
    **dict.fromkeys(("LoopedConfig", "LoopedForCausalLM"), "loopscale.model"),
    **dict.fromkeys(("Looped", "continue_loops", "run_loops"), "loopscale.stepping"),
}

register_soon()


def __getattr__(name: str) -> Any:
    """Import a public name, or a subpackage, that was not asked for before."""
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    if not name.startswith("_") and find_spec(f"loopscale.{name}") is not None:
        return import_module(f"loopscale.{name}")
    raise AttributeError(f"module 'loopscale' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names too that are not imported yet."""
    return sorted({*globals(), *__all__})
