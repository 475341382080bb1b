"""Repairs of model code that was written for transformers 4, and the one way in which live weights are loaded."""

import sys
from collections.abc import Mapping
from typing import Any

import transformers
from transformers.utils import ModelOutput

from loopscale.errors import InputError

FORMER, PRESENT = "past_key_values", "cache"  # the name of a cache before and since transformers 5.24


def keep_former_cache(model_class: type) -> None:
    """Let outputs of a model's own module take the cache under the one name that they have a field for.

    From 5.24 on transformers hands an output's `past_key_values` on as `cache`, which a class made before then refuses.
    """
    for output in vars(sys.modules[model_class.__module__]).values():
        if isinstance(output, type) and issubclass(output, ModelOutput) and output.__module__ == model_class.__module__:
            fields = getattr(output, "__dataclass_fields__", {})
            own = getattr(vars(output).get("__init__"), "__wrapped__", None)
            if FORMER in fields and PRESENT not in fields and own is not None:
                type.__setattr__(output, "__init__", own)  # past the metaclass, which would wrap it again


def class_of_transformers(name: str) -> Any:
    """Return a model class of transformers by name. Raises `InputError` where the installed version has none."""
    try:
        return getattr(transformers, name)
    except AttributeError as error:
        raise InputError(
            f"transformers {transformers.__version__} has no {name}: install 5.24 or later to load this model."
        ) from error


def load_whole(model_class: Any, name: str, **options: Any) -> Any:
    """Return the model of a folder or hub id in eval mode. Raises `InputError` where it is not there as a whole."""
    try:
        model, report = model_class.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:  # whatever its code raises
        raise InputError(f"the weights of '{name}' cannot be read: {type(error).__name__}: {error}") from error
    require_whole(report, name)
    return model.eval()


def require_whole(report: Mapping[str, Any], name: str) -> None:
    """Raise `InputError` where what transformers reports of a loading has weights that do not fit, miss or are left."""
    for weight, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"the model in '{name}' is not whole: weight {weight} has shape {tuple(found)} where its config asks for "
            f"{tuple(expected)}."
        )
    for problem in ("missing", "unexpected"):
        if weights := sorted(report[f"{problem}_keys"]):
            raise InputError(
                f"the model in '{name}' is not whole: {len(weights)} weights are {problem}, among them {weights[0]}."
            )
