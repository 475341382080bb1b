"""Names of transformers and torch that are private or have moved between versions.

Kept in one place, so that a new version of either is one place to look at.
"""

from loopscale.hf.attention import (
    AttentionMask,
    RotaryEmbedding,
    additive_mask,
    attend,
    attention_implementation,
    causal_mask,
    rotate,
)
from loopscale.hf.generating import GenerationHooks, prepared_generation
from loopscale.hf.modules import (
    does_more_than_its_class,
    execution_device,
    holds_numbers_alone,
    in_backward,
    is_of_a_compiler,
    kernel_device,
    kernels_of,
    modules_by_all_names,
    untransformed,
    warn_once,
    wrapped_model,
)
from loopscale.hf.naming import CACHE, name_ties, one_cache_name, register
from loopscale.hf.remote_code import Importable, RemoteCode
from loopscale.hf.sharding import ShardedTraining, whole
from loopscale.hf.trainers import StagedCheckpoints, accelerate_state, cpu_multiplies_bf16

__all__ = [
    "CACHE",
    "AttentionMask",
    "GenerationHooks",
    "Importable",
    "RemoteCode",
    "RotaryEmbedding",
    "ShardedTraining",
    "StagedCheckpoints",
    "accelerate_state",
    "additive_mask",
    "attend",
    "attention_implementation",
    "causal_mask",
    "cpu_multiplies_bf16",
    "does_more_than_its_class",
    "execution_device",
    "holds_numbers_alone",
    "in_backward",
    "is_of_a_compiler",
    "kernel_device",
    "kernels_of",
    "modules_by_all_names",
    "name_ties",
    "one_cache_name",
    "prepared_generation",
    "register",
    "rotate",
    "untransformed",
    "warn_once",
    "whole",
    "wrapped_model",
]
