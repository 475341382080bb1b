"""Huginn (`huginn_raven`, arXiv 2502.05171) behind the four verbs.

The state is what the core returns after each loop, before the coda. It is carried as it is; the core mixes it with the
prelude's output through one linear map. Each block ends in a norm of the whole residual stream (norm_2 and norm_4), so
scale is closed by architecture: the state leaves every loop with the scale of norm_4's weight, whatever it had before.
The readout normalises before the coda and hides scale as well. An audit can therefore find directions, not scale. The
loss is cross-entropy at the last loop only, of a depth drawn anew at every training step.
"""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import nn
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from loopscale.adapters.injected import Injected, InjectedLoop
from loopscale.adapters.repairs import keep_former_cache, load_whole
from loopscale.errors import InputError
from loopscale.hf import name_ties
from loopscale.objective import Terminal
from loopscale.stepping import Logits, State, Tokens

MODEL_TYPE = "huginn_raven"


@final
class Huginn(InjectedLoop):
    """The four verbs of a live `RavenForCausalLM`, through its public methods.

    The initial state is zero (`initialize_state` with scale 0), where the model itself draws one. Its own code ignores
    attention masks; here padded rows are shifted to begin with their first token. `core_block_forward` is its
    `iterate_one_step` with gradients, which an audit needs. No cache is passed to the coda, so probing an exit leaves
    nothing behind.
    """

    family = "Huginn"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        keep_former_cache(type(model))
        self.num_loops = self.trained_loops = self.model.config.mean_recurrence
        self.positions = self.model.config.block_size
        self.supervision = Terminal()

    def prelude(self, tokens: Tokens) -> Injected:
        """Return the prelude's output."""
        return self.model.embed_inputs(tokens)[0]

    def initial_state(self, injected: Injected) -> State:
        """Return zeros."""
        return self.model.initialize_state(injected, scale=0.0)

    def core(self, h: State, k: int, injected: Injected, tokens: Tokens) -> State:
        """Apply core(adapter([h, injected]))."""
        rotary, slot = self.model.freqs_cis[:, : h.shape[1]], torch.tensor(0)
        return self.model.core_block_forward(h, injected, rotary, None, None, slot, k)[0]

    def coda(self, z: State, tokens: Tokens) -> Logits:
        """Return lm_head(ln_f(coda(ln_f(z))))."""
        return self.model.predict_from_latents(z).logits


def load_huginn(name: str, config: Mapping[str, Any], trust_remote_code: bool) -> Huginn:
    """Load the live model of a folder or hub id.

    Its code comes with the checkpoint: it runs only with `trust_remote_code`, or where the user has imported it.
    Raises `InputError` otherwise.
    """
    model_class = _model_class(name, config, trust_remote_code)
    name_ties(model_class, {"lm_head.weight": "transformer.wte.weight"})
    # its config class passes tie_embeddings on under the other name, and cannot take both
    values = {key: value for key, value in config.items() if key not in {"tie_word_embeddings", "model_type"}}
    return Huginn(load_whole(model_class, name, config=model_class.config_class(**values)))


def _model_class(name: str, config: Mapping[str, Any], trust_remote_code: bool) -> Any:
    if MODEL_TYPE in CONFIG_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[MODEL_TYPE]]
    if not trust_remote_code:
        raise InputError(
            f"'{name}' is a Huginn, whose code comes with its checkpoint: read it, and pass trust_remote_code "
            "(--trust_remote_code) if you trust it."
        )
    try:
        return get_class_from_dynamic_module(config["auto_map"]["AutoModelForCausalLM"], name)
    except Exception as error:  # whatever its code raises
        raise InputError(
            f"the code of the Huginn at '{name}' cannot be loaded: {type(error).__name__}: {error}"
        ) from error
