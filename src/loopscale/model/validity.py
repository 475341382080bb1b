"""Validity of a configuration: sizes in range and in proportion, parts that fit each other, one sentence where not."""

import math
from typing import TYPE_CHECKING

from loopscale.errors import InputError
from loopscale.mechanism import choose, kind_of
from loopscale.model.parts import SLOTS
from loopscale.objective import penalties_of

if TYPE_CHECKING:
    from loopscale.model.config import LoopedConfig

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_stack_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "trained_loops", "max_position_embeddings"),
)


def check_config(config: "LoopedConfig") -> None:
    """Raise `InputError` for sizes and parts that do not fit together."""
    if config.num_loops < 1:
        raise InputError(f"num_loops is {config.num_loops}: a looped model needs at least 1 loop.")
    for name in SIZES:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: give at least 1.")
    for name in ("num_prelude_layers", "num_coda_layers"):
        if getattr(config, name) < 0:
            raise InputError(f"{name} is {getattr(config, name)}: give 0 or more.")
    if config.position_embedding == "rope" and (config.head_dim or 0) % 2:
        raise InputError(
            f"RoPE turns channels in pairs and needs an even head size, but head_dim is {config.head_dim} (of "
            f"hidden_size {config.hidden_size} and num_attention_heads {config.num_attention_heads}): change it."
        )
    if config.num_attention_heads % (config.num_key_value_heads or 1):
        raise InputError(
            f"num_attention_heads {config.num_attention_heads} is not a multiple of num_key_value_heads "
            f"{config.num_key_value_heads}: change one of them."
        )
    _check_losses(config)
    _check_parts(config)


def check_default_head(config: "LoopedConfig") -> None:
    """Raise `InputError` where the state cannot be cut into heads."""
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {config.num_attention_heads}: "
            "change one of them, or give head_dim."
        )


def _check_losses(config: "LoopedConfig") -> None:
    if not 0 <= config.dropout < 1:
        raise InputError(f"dropout is {config.dropout}: give a share from 0 to below 1.")
    for name in ("norm_penalty_coef", "entropy_coef", "rms_norm_eps"):
        if not 0 <= getattr(config, name) < math.inf:
            raise InputError(f"{name} is {getattr(config, name)}: give 0 or more.")
    if config.qk_norm_whole and not config.qk_norm:
        raise InputError("qk_norm_whole says how queries and keys are normalised, and qk_norm is false: set it too.")
    if config.qk_norm_eps is not None and not 0 <= config.qk_norm_eps < math.inf:
        raise InputError(f"qk_norm_eps is {config.qk_norm_eps}: give 0 or more.")
    if not 0 < config.embedding_scale < math.inf:
        raise InputError(f"embedding_scale is {config.embedding_scale}: give a number above 0.")
    if config.loop_weights is not None and not (
        all(0 <= weight < math.inf for weight in config.loop_weights) and any(config.loop_weights)
    ):
        raise InputError(f"loop_weights are {config.loop_weights}: give numbers from 0 on, one of them above 0.")
    if config.loop_weights is not None and len(config.loop_weights) != config.trained_loops:
        raise InputError(
            f"loop_weights has {len(config.loop_weights)} entries but the loss sees {config.trained_loops} loops: "
            "give one weight per loop."
        )


def _check_parts(config: "LoopedConfig") -> None:
    if config.residual is not None and config.norm_placement != "pre":
        raise InputError(
            f"residual is {config.residual!r} and norm_placement '{config.norm_placement}': both say where the norms "
            "of a block are, give one of them."
        )
    values = {**{slot: getattr(config, slot) for slot in SLOTS}, "residual": config.residual_part}
    parts = {slot: choose(slot, values[slot], registry)[0] for slot, registry in SLOTS.items()}
    penalties_of(config)
    if config.initial_state != "embedded" and not parts["injection"].reads_injected:
        raise InputError(
            f"initial_state '{config.initial_state}' starts the loops without their input, and injection 'none' "
            "never brings it in: give an injection, or initial_state embedded."
        )
    if kind_of(config.coda_input) != "state" and not config.num_coda_layers:
        raise InputError(
            f"coda_input is {config.coda_input!r}, and there are no layers before the readout to receive it: give "
            "num_coda_layers, or leave it out."
        )
    shared = parts["recurrence"].norm_kind
    if config.share_loop_norm and (shared is None or shared != parts["readout"].norm_kind):
        raise InputError(
            "share_loop_norm needs a norm of one kind in recurrence and readout (both 'rmsnorm'): there is no norm "
            "to share."
        )
