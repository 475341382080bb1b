"""Generation of transformers: what `generate` prepares for a call, and hooks into how it prepares it."""

from collections.abc import Iterable
from copy import copy
from typing import Any

from torch import Tensor
from transformers import GenerationMixin, PreTrainedConfig
from transformers.generation import LogitsProcessorList


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
    shadow.generation_config = copy(model.generation_config)
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
        raise NotImplementedError  # for the model that mixes this in

    def config_of_call(self, options: dict[str, Any], length: int) -> PreTrainedConfig:
        """Return the configuration to size a cache by, for a call with these `options` and a text of that length."""
        raise NotImplementedError  # for the model that mixes this in

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
