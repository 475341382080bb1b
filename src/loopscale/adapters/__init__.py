"""Other people's live models behind the four verbs, and one way to load any model by name."""

from loopscale.adapters.generation import stream_plainly
from loopscale.adapters.huginn import Huginn
from loopscale.adapters.injected import InjectedLoop
from loopscale.adapters.loading import load_model, load_tokenizer_of, require_native
from loopscale.adapters.parcae import Parcae

__all__ = ["Huginn", "InjectedLoop", "Parcae", "load_model", "load_tokenizer_of", "require_native", "stream_plainly"]
