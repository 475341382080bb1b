"""Building of a model from sizes and a state dict under our names; what is missing or does not fit is named."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor
from transformers.utils import logging

from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.size import require_layers, skeleton

State = Mapping[str, Shaped[Tensor, "..."]]
Weights = Mapping[str, ndarray | Tensor]  # as others hold them, under their names


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers from showing a bar, and from reporting what is then said in one sentence."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def require_sizes(config: Mapping[str, Any], names: Iterable[str], source: str) -> None:
    """Raise `InputError` unless every one of the `names` is a positive integer of `config`."""
    for name in names:
        value = config.get(name)
        if value is None:
            raise InputError(f"{source}: {name} is missing in its config.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{source}: {name} is {value!r} in its config: it must be a positive integer.")


def require_names(found: Collection[str], expected: Collection[str], spare: Collection[str], source: str) -> None:
    """Raise `InputError` unless a checkpoint holds the weights `expected`, and no other but those `spare`.

    Tables of rotary angles, which older versions saved among the weights, are always spare.
    """
    if missing := sorted(set(expected) - set(found)):
        raise InputError(f"{source} is not whole: {len(missing)} weights are missing, among them {missing[0]}.")
    if surplus := sorted(name for name in set(found) - set(expected) - set(spare) if "rotary_emb" not in name):
        raise InputError(f"{source} holds {len(surplus)} unknown weights, among them {surplus[0]}.")


def build_config(values: Mapping[str, Any], source: str) -> LoopedConfig:
    """Return the configuration of these values.

    Raises `InputError` where one has a wrong type or does not fit, and for more layers than a pass can go through.
    """
    try:
        config: LoopedConfig = LoopedConfig.from_dict(dict(values))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    require_layers(config, source)
    return config


def build_model(config: LoopedConfig, state: State, source: str) -> LoopedForCausalLM:
    """Return the model of `state`, in eval mode and in the precision of its widest weight.

    The tensors become the parameters: nothing is initialised first, so memory is that of the weights. `source` names
    the checkpoint in errors. Raises `InputError` where `state` and `config` do not fit each other.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{source}: weight {name} is {kind}, as in a quantised model: give the weights before quantisation."
            )
    expected = skeleton(config, source).state_dict()
    for name, tensor in state.items():
        if name in expected and expected[name].shape != tensor.shape:
            raise InputError(
                f"{source}: weight {name} has shape {tuple(tensor.shape)} where its config asks for "
                f"{tuple(expected[name].shape)}: config and weights are of different models."
            )
    with quietly():
        model, report = LoopedForCausalLM.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=reduce(torch.promote_types, (tensor.dtype for tensor in state.values())),
            output_loading_info=True,
        )
    for problem in ("missing", "unexpected"):
        if names := sorted(report[f"{problem}_keys"]):
            raise InputError(f"{source}: {len(names)} weights are {problem}, among them {names[0]}.")
    return model.eval()
