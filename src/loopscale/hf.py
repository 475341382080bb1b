"""Names of transformers and torch that are private or have moved between versions.

Kept in one place, so that a new version of either is one file to look at.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy, deepcopy
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import LogitsProcessorList
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.llama import modeling_llama
from transformers.utils import logging

__all__ = [
    "CACHE",
    "AttentionMask",
    "GenerationHooks",
    "RotaryEmbedding",
    "StagedCheckpoints",
    "accelerate_state",
    "attend",
    "attention_implementation",
    "causal_mask",
    "cpu_multiplies_bf16",
    "does_more_than_its_class",
    "execution_device",
    "in_backward",
    "mask_of",
    "one_cache_name",
    "prepared_generation",
    "register",
    "rotate",
    "warn_once",
    "wrapped_model",
]

# transformers calls a model's cache `past_key_values`, from 5.24 on `cache`: the keyword of `forward` and `generate`
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"

AttentionMask = Tensor | BlockMask | None  # in the form the attention implementation wants; None: plain causal
RotaryEmbedding = modeling_llama.LlamaRotaryEmbedding
rotate = modeling_llama.apply_rotary_pos_emb
Heads = Float[Tensor, "batch heads seq head_size"]
SeenHeads = Float[Tensor, "batch key_heads seen head_size"]


def attention_implementation(config: PreTrainedConfig) -> str:
    """Return the name of the attention that a model runs: eager, sdpa, flash_attention_2, flex_attention, ..."""
    return config._attn_implementation


def register(config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]) -> None:
    """Let the Auto classes know a causal language model, and by its name Trainer's label smoothing and pipelines."""
    AutoConfig.register(config_class.model_type, config_class)
    AutoModelForCausalLM.register(config_class, model_class)
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config_class.model_type] = model_class.__name__


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

    return telling


def _insist(sentence: str) -> None:
    """Warn of a change to come past all filters but those that make errors of warnings."""
    with warnings.catch_warnings(record=True):  # raises there
        warnings.warn(sentence, FutureWarning, stacklevel=3)
    warnings.showwarning(FutureWarning(sentence), FutureWarning, __file__, 0)


def does_more_than_its_class(module: nn.Module) -> bool:
    """Return whether hooks, or a forward of its own as accelerate's offloading puts there, go with a module's call."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in vars(module) or any(hooks)


def execution_device(model: nn.Module) -> torch.device:
    """Return where a model computes: where its weights lie, or where accelerate's offloading brings them to."""
    for module in model.modules():
        told = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if told is not None:
            return torch.device(told)
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def in_backward() -> bool:
    """Return whether this thread is in a backward pass, where gradient checkpointing runs forwards again."""
    return torch._C._current_graph_task_id() != -1


def wrapped_model(model: Any) -> Any:
    """Return the model inside what torch.compile, DistributedDataParallel and PEFT put around it; others as they are.

    PEFT's adapters are layers inside that model. Those of prompt learning are not: such a model is returned as it is.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "get_base_model") and not model.active_peft_config.is_prompt_learning:
            model = model.get_base_model()
        else:
            return model


def warn_once(sentence: str) -> None:
    """Say this in transformers' log, once in a process."""
    logging.get_logger(__name__).warning_once(sentence)


def attend(
    module: nn.Module, q: Heads, k: SeenHeads, v: SeenHeads, mask: AttentionMask, scaling: float
) -> tuple[Tensor, Tensor | None]:
    """Return attention's output, (batch, seq, heads, head size), by the implementation that `module.config` names.

    Beside it the attention map, (batch, heads, seq, seen), from eager attention alone.
    """
    name, eager = attention_implementation(module.config), modeling_llama.eager_attention_forward
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    return function(module, q, k, v, mask, dropout=0.0, scaling=scaling)


def causal_mask(
    config: PreTrainedConfig,
    h: Float[Tensor, "batch seq hidden"],
    attention_mask: Tensor | None,
    cache: Cache | None,
    position_ids: Tensor | None,
    slot: int,
    sliding: bool = False,
) -> AttentionMask:
    """Return the mask for the attention implementation, after what the cache has seen at `slot`."""
    # the cache by position: its keyword changed its name; `position_ids` only if the caller has them: transformers
    # would look through them for packed sequences, which syncs
    create = create_sliding_window_causal_mask if sliding else create_causal_mask
    return create(config, h, attention_mask, cache, position_ids=position_ids, layer_idx=slot)


def mask_of(config: PreTrainedConfig, allowed: Bool[Tensor, "..."], dtype: torch.dtype) -> Tensor:
    """Return what a token may see, (rows, 1, new, seen), in the form the attention implementation wants."""
    if attention_implementation(config) != "eager":
        return allowed
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~allowed, torch.finfo(dtype).min)


def prepared_generation(
    model: GenerationMixin,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    left_out: Iterable[str],
    options: dict[str, Any],
) -> tuple[LogitsProcessorList, Tensor | None]:
    """Return the logits processors and the mask (None: no padding) that `generate` prepares for a call, and stop there.

    `left_out` are settings of the model's generation_config to be taken for unset; the model itself stays as it is.
    """

    def hand_over(model: Any, input_ids: Tensor, logits_processor: LogitsProcessorList, **rest: Any) -> Any:
        return logits_processor, rest.get("attention_mask")

    shadow = copy(model)  # shares everything but its settings
    shadow.generation_config = deepcopy(model.generation_config)
    for name in ("max_length", "max_new_tokens", *left_out):
        setattr(shadow.generation_config, name, None)
    given = {} if attention_mask is None else {"attention_mask": attention_mask}
    # without a cache: nothing is to be allocated
    return shadow.generate(input_ids, custom_generate=hand_over, use_cache=False, **given, **options)


class GenerationHooks(GenerationMixin):
    """`generate` that asks the model about its prompt, and sizes the cache for the call instead of for the config."""

    config: PreTrainedConfig

    def check_prompt(self, width: int) -> None:
        """Raise `InputError` for a prompt of that many columns that cannot be run."""
        raise NotImplementedError

    def config_of_call(self, options: dict[str, Any], length: int) -> PreTrainedConfig:
        """Return the configuration to size a cache by, for a call with these `options` and a text of that length."""
        raise NotImplementedError

    def _prepare_generated_length(self, *args: Any, inputs_tensor: Tensor, **kwargs: Any) -> Any:
        self.check_prompt(inputs_tensor.shape[1])
        return super()._prepare_generated_length(*args, inputs_tensor=inputs_tensor, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict, mode: Any, batch_size: int, max_cache_length: int
    ) -> Any:
        own, self.config = self.config, self.config_of_call(model_kwargs, max_cache_length)
        try:
            return super()._prepare_cache_for_generation(
                generation_config, model_kwargs, mode, batch_size, max_cache_length
            )
        finally:
            self.config = own


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices natively."""
    if not torch.backends.mkldnn.is_available():  # nor is the question below, then
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()


@contextmanager
def accelerate_state() -> Iterator[None]:
    """Give back accelerate's process-wide state: a Trainer replaces it. Kept where processes train together."""
    kinds = (PartialState, AcceleratorState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    try:
        yield
    finally:
        if not (distributed.is_available() and distributed.is_initialized()):
            for kind, state in zip(kinds, before, strict=True):
                kind._shared_state.clear()
                kind._shared_state.update(state)


class StagedCheckpoints:
    """Mixin of transformers' Trainer that writes each checkpoint whole or not at all.

    The Trainer writes file by file into the checkpoint's folder; a killed save would leave half of one, and be resumed
    from. Here it writes into a staging folder, which `seal` may add to, and that is moved into place.
    """

    STAGING = ".staging"
    args: Any
    accelerator: Any
    _saving = False

    def before_checkpoint(self) -> None:
        """Prepare a checkpoint; called in every process."""

    def seal(self, folder: Path) -> None:
        """Complete a checkpoint that is written but not yet in its place; called in one process."""

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Return what surrounds the writing, to tell of errors."""
        return nullcontext()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)  # type: ignore[misc]
        return str(Path(folder, self.STAGING)) if self._saving else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints  # here: Trainer is slow to import

        self.before_checkpoint()
        folder = Path(super()._get_output_dir(trial))  # type: ignore[misc]
        if self.args.should_save:
            shutil.rmtree(folder / self.STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            with self.writing(folder):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with self.writing(folder):
                for checkpoint in (folder / self.STAGING).iterdir():
                    self.seal(checkpoint)
                    target = folder / checkpoint.name
                    shutil.rmtree(target, ignore_errors=True)
                    checkpoint.replace(target)
                (folder / self.STAGING).rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
