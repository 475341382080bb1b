"""Loading of a looped model and its tokenizer by folder, file or hub id, whoever made them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from loopscale.adapters.hrm import load_hrm
from loopscale.adapters.huginn import load_huginn
from loopscale.adapters.inkling import load_inkling
from loopscale.adapters.live import LiveLoop
from loopscale.adapters.parcae import load_parcae
from loopscale.convert import (
    FOLDERS,
    checkpoint_of,
    is_weight_file,
    kind_of_config,
    load_weight_file,
    local_folder,
    read_config,
    read_tokenizer,
)
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native
from loopscale.model.size import require_layers
from loopscale.stepping import Looped
from loopscale.system.manifest import MANIFEST, damage

__all__ = ["load_model", "load_tokenizer_of", "require_native"]

Config = Mapping[str, Any]
LiveLoader = Callable[[str, Config, bool], LiveLoop]  # name, config, trust_remote_code

# the kind that a config.json names -> the loader of the live model; those that become native models are in FOLDERS
LIVE: Mapping[str, LiveLoader] = {
    "hrm_text": lambda name, config, trust: load_hrm(name),
    "huginn_raven": load_huginn,
    **dict.fromkeys(
        ("inkling2_loop", "inkling2_loop_text"), lambda name, config, trust: load_inkling(name, config["model_type"])
    ),
    "ParcaeConfig": lambda name, config, trust: load_parcae(checkpoint_of(name, "ParcaeConfig"), config),
}


def load_model(name: str, num_loops: int | None = None, trust_remote_code: bool = False) -> Looped:
    """Return the model of a folder, a hub id, a `.pt` file of the paper's code or one file of weights, in eval mode.

    What has a native form (ours, the paper's, Ouro, Nanbeige, Huginn, Parcae) comes as a `LoopedForCausalLM`; others,
    and with `trust_remote_code` a Huginn or a Parcae, as the live model behind the four verbs (`LiveLoop`), which has
    no cache. `num_loops` sets another depth. `trust_remote_code` lets the code of a checkpoint run.

    Raises `InputError` where nothing is there, or where it is not a looped model this library knows.
    """
    if num_loops is not None and num_loops < 1:
        raise InputError(f"num_loops is {num_loops}: run at least 1 loop.")
    if is_weight_file(name):
        return _at_depth(load_weight_file(name), num_loops)
    config = read_config(local_folder(name, ("config.json",)))
    kind = kind_of_config(config)
    if kind not in {*FOLDERS, *LIVE}:
        known = ", ".join(sorted({*FOLDERS, *LIVE}))
        raise InputError(
            f"'{name}' is a model of type '{kind}': not one this library can run as a looped model ({known}). "
            "`loopscale retrofit` makes one of a pretrained Llama and its like."
        )
    if kind in FOLDERS and not (kind in LIVE and trust_remote_code):
        try:
            native = _native(name, kind)
        except InputError as refusal:
            if kind not in LIVE:
                raise
            return _live(name, kind, config, num_loops, str(refusal))
        return _at_depth(native, num_loops)
    return _live(name, kind, config, num_loops, None, trust_remote_code)


def _native(name: str, kind: str) -> LoopedForCausalLM:
    """Return the native model of a folder or hub id. Raises `InputError` where it has no such form, or is damaged."""
    folder = checkpoint_of(name, kind)
    if (complaint := damage(folder)) is not None:
        raise InputError(f"'{name}' {complaint}: bring the file back, or remove {MANIFEST} if the change is meant.")
    return FOLDERS[kind](folder, None)


def _live(
    name: str, kind: str, config: Config, num_loops: int | None, refusal: str | None, trust_remote_code: bool = False
) -> LiveLoop:
    """Return the live model. Raises `InputError` that also tells why it has no native form, where that was tried."""
    try:
        live = LIVE[kind](name, config, trust_remote_code)
    except InputError as error:
        if refusal is None:
            raise
        raise InputError(f"{refusal.rstrip('.')}; to run it as it is: {error}") from error
    live.num_loops = num_loops or live.num_loops
    return live


def require_finite(model: nn.Module, name: str) -> None:
    """Raise `InputError` for weights that are not finite: no figure, picture or text of theirs would mean anything."""
    wide = [(at, w) for at, w in model.named_parameters() if w.is_floating_point() and w.element_size() > 1]
    for at, weight in wide:
        if not weight.is_meta and not torch.isfinite(weight).all():
            raise InputError(
                f"'{name}' holds values that are not finite in weight {at}, as runs that diverged leave them: nothing "
                "that it computes would mean anything; take an earlier checkpoint, or train anew."
            )


def load_tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer saved beside a model. Raises `InputError` where there is none."""
    return read_tokenizer(name)


def _at_depth(model: LoopedForCausalLM, num_loops: int | None) -> LoopedForCausalLM:
    """Set the depth that a call runs by default; `trained_loops` stays."""
    config = model.config
    config.num_loops = num_loops or config.num_loops
    require_layers(config, "the model")
    return model
