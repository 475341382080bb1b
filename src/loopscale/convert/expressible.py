"""What another form cannot express of a model of ours: found field by field, weight by weight, and by running both."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.stepping import evaluating

# fields of ours that say how a model was trained or how it is run, not what it computes at the depth it is run at
ELSEWHERE = frozenset(
    {
        *("supervision", "loop_weights", "norm_penalty_coef", "penalties", "entropy_coef", "depth", "dropout", "init"),
        *("trained_loops", "use_cache"),
    }
)
PROBE_TOKENS = 16  # of the text on which both forms are compared


def kind(choice: Any) -> Any:
    """Return the name of a part that is given without arguments, whichever way, and any other value as it is."""
    return choice["kind"] if isinstance(choice, Mapping) and choice.keys() == {"kind"} else choice


def differing_fields(config: LoopedConfig, needs: Mapping[str, Any], judged: Collection[str]) -> list[str]:
    """Return, in words, the fields that are not what the other form needs, or, where it has no such thing, the default.

    `judged` are fields that it has, or that somebody else looks at: a field nobody has placed counts at its default.
    """
    plain = type(config)()
    expected = {name: getattr(plain, name) for name in LoopedConfig.__annotations__ if name not in ELSEWHERE}
    expected = {name: value for name, value in expected.items() if name not in judged} | dict(needs)
    has = {name: kind(getattr(config, name)) for name in expected}
    return [f"{name.removesuffix('_part')}={has[name]!r}" for name in expected if has[name] != expected[name]]


def rope_beyond(config: LoopedConfig) -> list[str]:
    """Return, in words, what a model's RoPE has beside its base."""
    rope = {key: value for key, value in (config.rope_parameters or {}).items() if key != "rope_theta"}
    scaled = config.position_embedding == "rope" and rope != {"rope_type": "default"}
    return [f"rope_parameters={rope}"] if scaled else []


def family_beyond(config: LoopedConfig) -> list[str]:
    """Return, in words, what families with a prelude, a core and a coda lack: other heads, or no layers around."""
    assert config.head_dim is not None  # the config fills it
    found = []
    if config.num_key_value_heads != config.num_attention_heads:
        found.append(f"num_key_value_heads={config.num_key_value_heads}")
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        found.append(f"head_dim={config.head_dim}")
    found += [f"{name}=0" for name in ("num_prelude_layers", "num_coda_layers") if not getattr(config, name)]
    return found + rope_beyond(config)


def require_placed(state: Mapping[str, Tensor], placed: Collection[str], unused: tuple[str, ...], form: str) -> None:
    """Raise `InputError` for a weight that has no place in the other form, unless its name begins as one `unused`."""
    shared = {state[name].data_ptr() for name in placed}
    lost = sorted(
        name
        for name, tensor in state.items()
        if name not in placed and tensor.data_ptr() not in shared and not name.startswith(unused)
    )
    if lost:
        raise InputError(
            f"this model cannot be written as a {form}, which has no place for {len(lost)} of its weights, among them "
            f"{lost[0]}."
        )


@torch.inference_mode()
def require_same(model: LoopedForCausalLM, rebuilt: LoopedForCausalLM, form: str) -> None:
    """Raise `InputError` unless the model and what is read back of its other form give the same logits on few tokens.

    A part that nobody thought of is refused so, rather than lost.
    """
    length = min(PROBE_TOKENS, model.config.max_position_embeddings)
    ids = torch.arange(1, length + 1)[None] * 7919 % model.config.vocab_size
    with evaluating(model):
        own = model(ids.to(model.device), num_loops=rebuilt.num_loops, use_cache=False).logits.double().cpu()
    other = rebuilt(ids.to(rebuilt.device), use_cache=False).logits.double().cpu()
    precision = 1e-3 if model.dtype == torch.float32 else 5e-2
    difference = float((own - other).abs().max())
    if not difference <= precision * (1 + float(own.abs().max())):
        raise InputError(
            f"this model computes something that a {form} does not: on {length} tokens their logits differ by "
            f"{difference:.3g}."
        )
