"""Facts of our own models, from their configuration: losses, readings, and floating-point operations by a formula."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscale.facts import Facts, TokenFlops, padding_of
from loopscale.mechanism import Named
from loopscale.model.blocks import ValueEmbedding
from loopscale.model.config import LoopedConfig
from loopscale.model.parts import SLOTS, build_part
from loopscale.objective import (
    Labels,
    Losses,
    build_supervision,
    penalties_of,
    plain_weight,
    token_cross_entropy,
)
from loopscale.stepping import Context, State

if TYPE_CHECKING:
    from loopscale.model.looped import LoopedForCausalLM


def looped_facts(model: "LoopedForCausalLM") -> Facts:
    """Return the facts of a model."""
    config = model.config
    return Facts(
        trained_depth=model.trained_loops,
        losses=config_losses(config),
        readings={name: partial(_exit_losses, model, last) for name, last in model.readings.items()},
        positions=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        head=None if config.num_coda_layers else plain_weight(model.lm_head),  # of the state
        flops=partial(formula_flops, config),
        gate=None if model.exit_gate is None else model.exit_probability,
        padding=padding_of(model),
        configured=True,
    )


def config_losses(config: LoopedConfig) -> Losses:
    """Return the losses that a configuration trains with."""
    assert config.trained_loops is not None  # the config fills it
    supervision = build_supervision(config.supervision, config.loop_weights, config.entropy_coef)
    return Losses.of(config.trained_loops, supervision, penalties_of(config))


def _exit_losses(
    model: "LoopedForCausalLM", last: bool | None, z: State, k: int, labels: Labels, context: Context | None
) -> Float[Tensor, "batch seq"]:
    return token_cross_entropy(model.readout_state(z, k, context, last), model.lm_head, labels)


def formula_flops(config: LoopedConfig, sequence_length: int) -> TokenFlops:
    """Return the matrix multiplications per token of one of our models, for windows of T tokens.

    One layer: 4 D D_q for q and o (D_q = heads times head size), 4 D D_kv for k and v, 6 D I for SwiGLU or 4 D I for
    two maps, and 4 T D_q for attention, which is counted over all T keys, as kernels and papers do, not over the causal
    half. The layers before the loops count once; a loop is L layers and the matrices of its parts; a readout is the
    layers before it and 2 D V. Norms and activations are left out: they are not matrix multiplications.
    """
    assert config.num_key_value_heads is not None and config.intermediate_size is not None  # the config fills them
    assert config.head_dim is not None
    D = config.hidden_size
    q_size, kv_size = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    feed_forward = (6 if config.mlp == "swiglu" else 4) * D * config.intermediate_size
    layer = 4 * D * (q_size + kv_size) + feed_forward + 4 * sequence_length * q_size
    extra = {
        slot: _matrices(slot, value, config)
        for slot, value in (
            ("injection", config.injection),
            ("residual", config.residual_part),
            ("recurrence", config.recurrence),
            ("readout", config.readout),
            ("coda_input", config.coda_input),
        )
    }
    whole_layer = layer + 2.0 * extra["residual"]  # two branches
    gate = 2.0 * min(ValueEmbedding.channels, D) * config.num_key_value_heads
    counts = (config.num_prelude_layers, config.num_stack_layers, config.num_coda_layers)
    firsts = (0, counts[0], counts[0] + counts[1])
    prelude, stack, coda = (
        count * whole_layer + gate * sum(map(config.has_value_embedding, range(first, first + count)))
        for first, count in zip(firsts, counts, strict=True)
    )
    return TokenFlops(
        embed=prelude,
        step=stack + extra["injection"],
        carry=extra["recurrence"],
        readout=coda
        + 2.0 * D * config.vocab_size
        + extra["readout"]
        + (extra["coda_input"] if config.num_coda_layers else 0.0),
    )


def _matrices(slot: str, value: Named, config: LoopedConfig) -> float:
    """Return the operations per token of the matrices that a part holds."""
    with torch.device("meta"):  # only their sizes are asked
        part = build_part(slot, value, SLOTS[slot], config.layer_sizes(1, 1))
    return 2.0 * sum(m.weight.numel() for m in part.modules() if isinstance(m, nn.Linear))
