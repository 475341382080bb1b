"""Names of weights without what a training script put before them: a compiled, parallel or nested model's names."""

import logging
from collections.abc import Mapping
from typing import TypeVar

from loopscale.errors import InputError

T = TypeVar("T")

# a component that a wrapper puts into names -> whose it is
WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DataParallel, DDP or DeepSpeed",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning",
}

logger = logging.getLogger(__name__)


def plain_names(weights: Mapping[str, T], anchor: str, source: str) -> dict[str, T]:
    """Return the weights under the model's own names, and log what was left out of the names.

    `anchor` is the name of one weight that every such model has, under which it tells what stands before it. Weights
    that do not stand under the same prefix keep their names, so that they are refused by whoever knows the rest.

    Raises `InputError` where two weights get one name, where it is not clear which model is meant, and for adapters.
    """
    found: dict[str, T] = {}
    left_out: dict[str, None] = {}
    for name, value in weights.items():
        parts = name.split(".")
        left_out |= dict.fromkeys(part for part in parts if part in WRAPPERS)
        plain = ".".join(part for part in parts if part not in WRAPPERS)
        if plain in found:
            raise InputError(f"{source}: two weights are called {plain} once the names of wrappers are left out.")
        found[plain] = value
    if adapters := [name for name in found if ".lora_" in name or name.startswith("lora_")]:
        raise InputError(
            f"{source}: it holds low-rank adapters ({adapters[0]}): merge them into their model (merge_and_unload) and "
            "save that."
        )
    nests = [name.removesuffix(anchor) for name in found if name == anchor or name.endswith(f".{anchor}")]
    if len(nests) > 1:
        raise InputError(f"{source}: it holds {len(nests)} models, under {' and '.join(map(repr, nests))}: keep one.")
    nest = nests[0] if nests else ""
    if nest:
        found = {name.removeprefix(nest): value for name, value in found.items()}
    said = [f"{part}. ({WRAPPERS[part]})" for part in left_out] + ([nest] if nest else [])
    if said:
        logger.warning("%s: names of weights are read without %s", source, " and ".join(said))
    return found
