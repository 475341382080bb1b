"""From a state dict under our names to a model, with every missing, surplus or misshapen weight named."""

from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor
from transformers.utils import logging

from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM

State = Mapping[str, Shaped[Tensor, "..."]]


def build_model(config: LoopedConfig, state: State, source: str) -> LoopedForCausalLM:
    """Return the model of `state`, in eval mode and in the precision of its embeddings.

    The tensors become the parameters: nothing is initialised first, so memory is that of the weights. `source` names
    the checkpoint in errors. Raises `InputError` where `state` and `config` do not fit each other.
    """
    with torch.device("meta"):
        expected = LoopedForCausalLM(config).state_dict()
    for name, tensor in state.items():
        if name in expected and expected[name].shape != tensor.shape:
            raise InputError(
                f"{source}: weight {name} has shape {tuple(tensor.shape)} where its config asks for "
                f"{tuple(expected[name].shape)}: config and weights are of different models."
            )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # the weights are in memory already
    try:
        model, report = LoopedForCausalLM.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=state["model.embed_tokens.weight"].dtype,
            output_loading_info=True,
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    for problem in ("missing", "unexpected"):
        if names := sorted(report[f"{problem}_keys"]):
            raise InputError(f"{source}: {len(names)} weights are {problem}, among them {names[0]}.")
    return model.eval()
