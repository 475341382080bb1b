"""Surgery: the layers of a pretrained model as prelude, core and coda of a looped one.

With one loop it is the original, and both are run on a few tokens to make sure of it.

Letters: B batch, T tokens, V vocabulary.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from transformers import PreTrainedModel

from loopscale.convert.build import build_model
from loopscale.errors import InputError
from loopscale.mechanism import Named
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.parts.relaxation import FullStep
from loopscale.model.slots import check_loops
from loopscale.retrofit.family import FAMILIES, looped_config
from loopscale.retrofit.pretrained import load_pretrained
from loopscale.retrofit.start import started_parts
from loopscale.stepping import evaluating

PROBE_TOKENS = 16  # of the text on which both models are compared
PRECISION = {torch.float32: 1e-4, torch.float64: 1e-8}  # of their logits, against the largest; coarser types round more
COARSE = 5e-2


def retrofit(
    model: PreTrainedModel | str,
    core: tuple[int, int],
    num_loops: int = 4,
    *,
    injection: Named = "none",
    relaxation: Named = "full",
    recurrence: Named = "residual",
) -> LoopedForCausalLM:
    """Return a looped model of a pretrained one, in eval mode and its precision: with one loop it is the original.

    Layers before `core[0]` run once, those from there up to but not including `core[1]` are looped `num_loops` times,
    the rest runs once before the readout. `model` is a transformers model, or its folder, hub id or GGUF file; its
    weights are copied. `injection`, `relaxation` and `recurrence` fill the slots of the loop, started so that they
    change nothing at one loop: `linear` at [I 0], `restart` without its message. A `fixed` relaxation is what damps
    every loop, so that it takes several to be near the original.

    Raises `InputError` for a model that computes something a looped one does not (naming the field), a core that is no
    range of its layers, and a part with which one loop is another model: both are run on a few tokens.
    """
    check_loops(num_loops)
    original = load_pretrained(model) if isinstance(model, str) else model
    parts = {"injection": injection, "relaxation": relaxation, "recurrence": recurrence}
    config = looped_config(original.config, core, num_loops, **parts)
    at_start = {name: weight.to(original.dtype) for name, weight in started_parts(config).items()}
    names = FAMILIES[original.config.model_type].names
    state = {**renamed(original.state_dict(), config, names), **at_start}
    looped = build_model(config, state, f"this {original.config.model_type}")
    if original.generation_config is not None:
        looped.generation_config = deepcopy(original.generation_config)
    check_same(original, looped)
    return looped


def renamed(
    weights: dict[str, Tensor], config: LoopedConfig, names: Mapping[str, str]
) -> dict[str, Shaped[Tensor, "..."]]:
    """Return copies of a pretrained model's weights under our names; `names` are those of its kind, in ours."""
    first, last = config.num_prelude_layers, config.num_prelude_layers + config.num_stack_layers
    state = {}
    for name, weight in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        *place, module, last_name = our_name(name, first, last).split(".")
        state[".".join([*place, names.get(module, module), last_name])] = weight.detach().clone()
    return state


def our_name(name: str, first: int, last: int) -> str:
    """Return our name of a pretrained model's weight, for a core from layer `first` up to `last`."""
    if name == "model.norm.weight":
        return "readout_norm.norm.weight"
    if not name.startswith("model.layers."):
        return name
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    i = int(number)
    place, i = ("prelude", i) if i < first else ("layers", i - first) if i < last else ("coda", i - last)
    return f"model.{place}.{i}.{rest}"


@torch.inference_mode()
def check_same(original: PreTrainedModel, looped: LoopedForCausalLM) -> None:
    """Raise `InputError` unless one loop gives the original's logits on a few tokens."""
    ids = torch.arange(1, PROBE_TOKENS + 1, device=original.device)[None] * 7919 % looped.config.vocab_size
    expected = _logits(original, ids)
    relaxation, looped.model.relaxation = looped.model.relaxation, FullStep(looped.config, None)
    try:
        found = _logits(looped, ids.to(looped.device), num_loops=1)
    finally:
        looped.model.relaxation = relaxation
    limit = PRECISION.get(looped.dtype, COARSE) * (1 + float(expected.abs().max()))
    difference = float((expected - found).abs().max())
    if not difference <= limit:
        raise InputError(
            f"with one loop this would be another model (logits of {PROBE_TOKENS} tokens differ by {difference:.3g}): "
            f"{_reason(looped.config)}."
        )


def _logits(model: Any, ids: Tensor, **options: Any) -> Float[Tensor, "batch seq vocab"]:
    with evaluating(model):
        return model(ids, use_cache=False, **options).logits.double().cpu()


def _reason(config: LoopedConfig) -> str:
    if config.injection != "none":
        return (
            f"injection {config.injection!r} changes what the first loop receives; take linear, restart, "
            "{kind: add, gain: 0} or {kind: diagonal, rule: zoh}"
        )
    return "it computes something that our layers do not"
