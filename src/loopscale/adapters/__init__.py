"""Other people's live models behind the four verbs."""

from importlib import import_module
from typing import Any

from loopscale.adapters.generation import stream_plainly
from loopscale.adapters.hrm import HrmText
from loopscale.adapters.huginn import Huginn
from loopscale.adapters.injected import InjectedLoop
from loopscale.adapters.inkling import Inkling
from loopscale.adapters.live import LiveLoop
from loopscale.adapters.parcae import Parcae

__all__ = ["HrmText", "Huginn", "InjectedLoop", "Inkling", "LiveLoop", "Parcae", "stream_plainly"]

MOVED = ("load_model", "load_tokenizer_of", "require_native")  # to `loopscale.load`


def __getattr__(name: str) -> Any:
    """Return a name from where it lives now."""
    if name in MOVED:
        return getattr(import_module("loopscale.load"), name)
    raise AttributeError(f"module 'loopscale.adapters' has no attribute '{name}'")
