"""Other people's live models behind the four verbs, and one way to load any model by name."""

from loopscale.adapters.loading import load_model, load_tokenizer_of

__all__ = ["load_model", "load_tokenizer_of"]
