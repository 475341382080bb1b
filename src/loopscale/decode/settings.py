"""Generation settings: what `generate` would make of a model's generation_config, and what cannot be followed here.

transformers prepares a call: it infers the mask and builds the logits processors, so that both are its own.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList

from loopscale.hf import prepared_generation
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Tokens


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# followed: through logits processors, the length or the end of a row
FOLLOWED = _names(
    "max_length max_new_tokens min_length min_new_tokens pad_token_id eos_token_id repetition_penalty "
    "encoder_repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids renormalize_logits "
    "forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens "
    "begin_suppress_tokens sequence_bias"
)
# of these, where a text ends: they leave logits alone
ENDS = _names("max_length max_new_tokens pad_token_id eos_token_id")
# followed where the caller samples; without effect on a greedy text
SAMPLING = _names("temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff")
# without effect on the text of one greedy or sampled sequence: how it is computed, and what is returned beside it
HARMLESS = _names(
    "early_stopping length_penalty use_cache cache_config max_cache_len output_attentions output_hidden_states "
    "output_scores output_logits return_dict_in_generate bos_token_id decoder_start_token_id is_assistant use_mtp "
    "num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold prompt_lookup_num_tokens "
    "max_matching_ngram_size assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight "
    "speculation_type compile_config disable_compile continuous_batching_config low_memory prefill_chunk_size "
    "transformers_version"
)
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "num_beam_groups": 1, "guidance_scale": 1, "penalty_alpha": 0}
# what these do to logits does not depend on the tokens before
PREFIX_FREE = _names(
    "TemperatureLogitsWarper TopKLogitsWarper TopPLogitsWarper MinPLogitsWarper TopHLogitsWarper TypicalLogitsWarper "
    "EpsilonLogitsWarper EtaLogitsWarper SuppressTokensLogitsProcessor LogitNormalization InfNanRemoveLogitsProcessor"
)
Prefix = tuple[int, Sequence[int]]  # a row, and the new tokens before the one that is asked for


def not_followed(config: GenerationConfig, sampled: bool) -> Iterator[str]:
    """Yield the settings of a generation_config that change the text and that the decoders here do not follow.

    A setting that this version does not know counts as one of them.
    """
    for name, value in vars(config).items():
        known = name.startswith("_") or name in FOLLOWED or name in SAMPLING or name in HARMLESS
        off = value is None or value is False or value in ("", [], {}) or value == NEUTRAL.get(name, ())
        if known or off or (name == "do_sample" and sampled):
            continue
        if name == "cache_implementation" and "quantized" not in str(value):
            continue
        yield name


def leaves_alone(model: LoopedForCausalLM, ids: Tokens, pad: int | None) -> bool:
    """Return whether nothing is set that changes the logits of a greedy text, and nothing in `ids` is padding.

    What `generate` would prepare is nothing then, and to ask it costs as much as a token of a small model.
    """
    changing, asked = FOLLOWED - ENDS, vars(model.generation_config)
    if not all(asked.get(name) is None or asked[name] is False for name in changing):
        return False
    if any(vars(model.config).get(name) is not None for name in changing | SAMPLING):  # `generate` refuses it there
        return False
    return pad is None or not bool((ids == pad).any())


@final
class Processing:
    """Changes logits as the settings of a call ask, given the tokens before: the same as `generate` does.

    `lists` are the logits processors of every row of `ids`, or of all rows together.
    """

    def __init__(self, ids: Tokens, lists: Sequence[LogitsProcessorList] = ()) -> None:
        self.ids = ids
        self.lists = [processors for processors in lists if processors]
        self.reads_prefix = any(type(p).__name__ not in PREFIX_FREE for every in self.lists for p in every)

    def __call__(
        self, logits: Float[Tensor, "asked vocab"], prefixes: Sequence[Prefix]
    ) -> Float[Tensor, "asked vocab"]:
        """Return the logits that a token is chosen by, each after its own prefix."""
        if not self.lists:
            return logits
        if not self.reads_prefix:
            return self.lists[0](self.ids[:1, :0].expand(len(logits), 0), logits.clone())
        changed = []
        for one, (row, new) in zip(logits.split(1), prefixes, strict=True):
            prompt = self.ids[row : row + 1]
            before = torch.cat([prompt, prompt.new_tensor([list(new)])], 1) if new else prompt
            changed.append(self.lists[row % len(self.lists)](before, one.clone()))
        return torch.cat(changed)


def read_settings(
    model: LoopedForCausalLM,
    ids: Tokens,
    mask: Tensor | None,
    max_new_tokens: int,
    ends: dict[str, Any],
    sampling: dict[str, Any] | None,
) -> tuple[Processing, Tensor | None]:
    """Return what to do to the logits of a call, and the mask of its prompts, inferred where it is not given.

    `ends` are token ids that end and fill a text, `sampling` what the caller samples by (None: greedy). Warns, once,
    of the settings in the model's generation_config that are not followed.
    """
    own = model.generation_config
    if left := list(not_followed(own, sampling is not None)):
        said = ", ".join(f"{name} ({getattr(own, name)})" for name in left)
        hint = ", and give a temperature to sample" if "do_sample" in left else ""
        warnings.warn(
            f"generation_config sets {said}, which this decoder does not follow: use model.generate for that{hint}.",
            stacklevel=4,
        )
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False}
    options |= {name: value for name, value in ends.items() if value is not None}
    if sampling is not None:  # 0 and 1 are transformers' words for no limit
        unlimited = {"top_k": getattr(own, "top_k", None) or 0, "top_p": getattr(own, "top_p", None) or 1.0}
        options |= {"do_sample": True, **unlimited, **{k: v for k, v in sampling.items() if v is not None}}
    pad = ends.get("pad_token_id")
    if mask is None and sampling is None and leaves_alone(model, ids, own.pad_token_id if pad is None else pad):
        return Processing(ids), None
    processors, mask = prepared_generation(model, ids, mask, left, options)
    rows = Processing(ids, [processors])
    if (
        len(ids) > 1 and rows.reads_prefix
    ):  # some processors know of every row's padding: rows are asked one by one here
        masks = torch.ones_like(ids) if mask is None else mask
        each = (prepared_generation(model, ids[i : i + 1], masks[i : i + 1], left, options)[0] for i in range(len(ids)))
        rows = Processing(ids, list(each))
    return rows, mask
