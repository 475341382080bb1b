"""Names that a causal language model goes by in transformers: in the Auto classes, and for its cache."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import signature
from types import ModuleType
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# transformers calls a model's cache `past_key_values`, from 5.24 on `cache`: the keyword of `forward` and `generate`
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


def register(config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]) -> None:
    """Let the Auto classes know a causal language model, and by its name Trainer, pipelines and servers."""
    AutoConfig.register(config_class.model_type, config_class)
    AutoModelForCausalLM.register(config_class, model_class)
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config_class.model_type] = model_class.__name__
    for module in _transformers_modules():  # where `transformers serve` looks for the architecture of a config
        setattr(module, model_class.__name__, model_class)


def name_ties(model_class: Any, tied: dict[str, str]) -> None:
    """Say what is tied to what, where a class only lists the tied weights, as transformers 4 wanted it."""
    if isinstance(model_class._tied_weights_keys, list):
        model_class._tied_weights_keys = tied


def _transformers_modules() -> list[ModuleType]:
    """Return transformers, once more where it put itself into `sys.modules` anew after others had imported it."""
    held = [getattr(module, "__dict__", {}).get("transformers") for module in list(sys.modules.values())]
    return [module for module in (sys.modules["transformers"], *held) if _is_transformers(module)]


def _is_transformers(value: Any) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and value.__name__ == "transformers"


def one_cache_name(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `forward` that tells, once for every model, of a cache that is given under its former name.

    Whatever warnings are ignored: the call will not work in a later version. Where warnings are errors it is one.
    Before 5.24 the former name is the only one.
    """
    if CACHE == "past_key_values":
        return forward

    @wraps(forward)
    def telling(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        former = kwargs.get("past_key_values") is not None
        if former and not torch.compiler.is_compiling() and "_told_of_cache" not in vars(self):
            vars(self)["_told_of_cache"] = True
            _insist(f"`past_key_values` is deprecated for {type(self).__name__}: call the cache `cache`.")
        return forward(self, *args, **kwargs)

    vars(telling)["__signature__"] = signature(forward)  # which every call of `generate` asks for, several times
    return telling


def _insist(sentence: str) -> None:
    """Warn of a change to come past all filters but those that make errors of warnings."""
    with warnings.catch_warnings(record=True):  # raises there
        warnings.warn(sentence, FutureWarning, stacklevel=3)
    warnings.showwarning(FutureWarning(sentence), FutureWarning, __file__, 0)
