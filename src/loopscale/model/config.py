"""Configuration of the looped model, and the sizes that have a name."""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import fields
from typing import Any, Literal, no_type_check

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from loopscale.errors import InputError, unknown
from loopscale.mechanism import choose
from loopscale.model.parts import SLOTS
from loopscale.model.slots import Slots
from loopscale.objective import SUPERVISIONS, penalties_of

PartChoice = dict[str, Any] | str  # a part's name, or its name under `kind` with its arguments
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_stack_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "trained_loops", "max_position_embeddings"),
)


@strict
@no_type_check  # transformers checks the fields itself and wants its own __init__
class LoopedConfig(PreTrainedConfig):
    """Sizes and variants of a `LoopedForCausalLM`.

    `num_stack_layers` layers are applied `num_loops` times; `num_hidden_layers` is their product, and the layers before
    the loops, so that caches and hidden-state indexing in transformers see the virtual depth.

    Args:
        vocab_size: tokens the model knows.
        hidden_size: channels of the state.
        intermediate_size: channels inside the feed-forward block; 4 times the hidden size by default.
        num_stack_layers: layers of the shared stack.
        num_prelude_layers: layers that run once, before the loops; what they make of the tokens is the input e.
        initial_state: what the first loop receives: the input (embedded), zeros, or noise, a fixed draw per position.
        num_attention_heads: heads of attention.
        num_key_value_heads: heads of keys and values; as many as heads by default.
        head_dim: channels of one head; hidden_size / num_attention_heads by default.
        attention_bias: queries, keys and values have biases.
        attention_output_bias: what attention writes has a bias.
        qk_norm: queries and keys are normalised (RMSNorm) in every head, before RoPE.
        mlp: feed-forward block: gated (swiglu), or two maps around GELU, exact (gelu) or by tanh (gelu_tanh, GPT-2's).
        mlp_bias: the maps of the feed-forward block have biases.
        num_loops: times the stack is applied.
        trained_loops: loops the loss saw; stays when num_loops is changed at loading, and tells which exit is final.
        max_position_embeddings: positions of a learned table, or that RoPE was trained on.
        position_embedding: learned, or rope.
        rope_parameters: of RoPE, as transformers has them.
        block_norm: norm inside the layers.
        norm_placement: norms before the blocks (pre), or before and after (sandwich).
        residual: how a block joins the stream: norm_placement by default, or another part of that slot.
        injection: how the input enters every loop again; none by default.
        recurrence: what the next loop receives: the state (residual), normalised (rmsnorm), damped (learned), ...
        readout: what the LM head sees: the state normalised (rmsnorm, layernorm), raw, normalised at the final exit
            alone (final_rmsnorm), ...
        share_loop_norm: the inter-loop norm and the readout's norm are one, as in Ouro.
        supervision: which exits the loss sees: the last (terminal), every one (per_loop), every one and then the last
            (annealed), or every one by an exit gate (exit_gate, batch_exit_gate).
        loop_weights: weights of the exits under per_loop; equal by default.
        norm_penalty_coef: lambda of the norm penalty (arXiv 2606.24898: 0.01); 0 is none.
        penalties: losses of the state beside the exits', each a name or a mapping with its coefficient.
        exit_gate: the model has a gate that says where to leave; always under supervision by a gate.
        exit_threshold: cumulative exit probability at which a gated model was made to leave (Ouro; 1: full depth).
        entropy_coef: beta of supervision exit_gate (Ouro).
        tie_word_embeddings: the LM head is the embedding.
        embedding_scale: embedded tokens are multiplied by it (Huginn: the square root of the hidden size).
        dropout: share dropped of embeddings and block outputs.
        rms_norm_eps: epsilon of every norm.
        init: torch's default initialisation, the paper's, or normal.
        initializer_range: standard deviation of normal initialisation.
        use_cache: keep keys and values while generating.
        pad_token_id: token that fills short rows.
        bos_token_id: token that begins a text.
        eos_token_id: token or tokens that end one.

    Raises `InputError` for sizes that do not fit together.
    """

    model_type = "loopscale"
    # transformers' Trainer adds it to a list
    keys_to_ignore_at_inference = [  # noqa: RUF012
        *("cache", "past_key_values", "loop_losses", "loop_norms", "states", "exit_probabilities"),
    ]

    vocab_size: int = 20_000
    hidden_size: int = 512
    intermediate_size: int | None = None
    num_stack_layers: int = 8
    num_prelude_layers: int = 0
    initial_state: Literal["embedded", "zeros", "noise"] = "embedded"
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    attention_output_bias: bool = False
    qk_norm: bool = False
    mlp: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    mlp_bias: bool = False
    num_loops: int = 4
    trained_loops: int | None = None
    max_position_embeddings: int = 256
    position_embedding: Literal["learned", "rope"] = "learned"
    rope_parameters: dict[str, Any] | None = None
    block_norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_placement: Literal["pre", "sandwich"] = "pre"
    residual: PartChoice | None = None
    injection: PartChoice = "none"
    recurrence: PartChoice = "residual"
    readout: PartChoice = "rmsnorm"
    share_loop_norm: bool = False
    supervision: PartChoice = "per_loop"
    loop_weights: list[float] | None = None
    norm_penalty_coef: float = 0.0
    penalties: list[Any] | None = None
    exit_gate: bool = False
    exit_threshold: float = 1.0
    entropy_coef: float = 0.05
    tie_word_embeddings: bool = True
    embedding_scale: float = 1.0
    dropout: float = 0.1
    rms_norm_eps: float = 1e-6
    init: Literal["torch_default", "normal"] = "torch_default"
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the sizes that follow from others."""
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0:
            self._check_default_head()
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.trained_loops is None:
            self.trained_loops = self.num_loops
        if choose("supervision", self.supervision, SUPERVISIONS)[0].gated:
            self.exit_gate = True
        kwargs.pop("num_hidden_layers", None)
        self._check_sizes()
        super().__post_init__(**kwargs)

    @property
    def residual_part(self) -> PartChoice:
        """What joins a block to the stream."""
        return self.norm_placement if self.residual is None else self.residual

    @property
    def num_hidden_layers(self) -> int:
        """Virtual depth: layers of the stack times loops, and those before the loops."""
        return self.slots().total

    @num_hidden_layers.setter
    def num_hidden_layers(self, value: int) -> None:
        self.num_loops = self.slots().loops_in(value)

    def slots(self, num_loops: int | None = None) -> Slots:
        """Return the cache layout of a call with that many loops (default: `num_loops`)."""
        loops = self.num_loops if num_loops is None else num_loops
        return Slots(core=self.num_stack_layers, loops=loops, prelude=self.num_prelude_layers)

    def at_depth(self, num_loops: int) -> "LoopedConfig":
        """Return the configuration with another number of loops, for whoever sizes a cache by it."""
        config = copy(self)
        config.num_loops = num_loops
        return config

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a mapping as JSON and YAML have it, 1 for 1.0 included. Raises `InputError` for wrong values."""
        floats = {f.name for f in fields(cls) if f.type is float}
        values: dict[str, Any] = {k: float(v) if k in floats and type(v) is int else v for k, v in config_dict.items()}
        if values.get("loop_weights"):
            values["loop_weights"] = [float(w) if type(w) is int else w for w in values["loop_weights"]]
        try:
            return super().from_dict(values, **kwargs)
        except StrictDataclassError as error:
            raise InputError(f"not a loopscale model's configuration: {error.__cause__ or error}.") from error

    def validate_rope(self) -> None:
        """Leave models without RoPE alone, whatever their head size."""
        if self.position_embedding == "rope":
            super().validate_rope()

    def _check_sizes(self) -> None:
        if self.num_loops < 1:
            raise InputError(f"num_loops is {self.num_loops}: a looped model needs at least 1 loop.")
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: give at least 1.")
        if self.num_prelude_layers < 0:
            raise InputError(f"num_prelude_layers is {self.num_prelude_layers}: give 0 or more.")
        if self.position_embedding == "rope" and (self.head_dim or 0) % 2:
            raise InputError(
                f"RoPE turns channels in pairs and needs an even head size, but head_dim is {self.head_dim} (of "
                f"hidden_size {self.hidden_size} and num_attention_heads {self.num_attention_heads}): change it."
            )
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise InputError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}: change one of them."
            )
        self._check_losses()

    def _check_default_head(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}: "
                "change one of them, or give head_dim."
            )

    def _check_losses(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: give a share from 0 to below 1.")
        for name in ("norm_penalty_coef", "entropy_coef", "rms_norm_eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 or more.")
        if not 0 < self.embedding_scale < math.inf:
            raise InputError(f"embedding_scale is {self.embedding_scale}: give a number above 0.")
        if self.loop_weights is not None and not (
            all(0 <= weight < math.inf for weight in self.loop_weights) and any(self.loop_weights)
        ):
            raise InputError(f"loop_weights are {self.loop_weights}: give numbers from 0 on, one of them above 0.")
        if self.loop_weights is not None and len(self.loop_weights) != self.trained_loops:
            raise InputError(
                f"loop_weights has {len(self.loop_weights)} entries but the loss sees {self.trained_loops} loops: "
                "give one weight per loop."
            )
        self._check_parts()

    def _check_parts(self) -> None:
        if self.residual is not None and self.norm_placement != "pre":
            raise InputError(
                f"residual is {self.residual!r} and norm_placement '{self.norm_placement}': both say where the norms "
                "of a block are, give one of them."
            )
        values = {**{slot: getattr(self, slot) for slot in SLOTS}, "residual": self.residual_part}
        parts = {slot: choose(slot, values[slot], registry)[0] for slot, registry in SLOTS.items()}
        penalties_of(self)
        if self.initial_state != "embedded" and not parts["injection"].reads_injected:
            raise InputError(
                f"initial_state '{self.initial_state}' starts the loops without their input, and injection 'none' "
                "never brings it in: give an injection, or initial_state embedded."
            )
        shared = parts["recurrence"].norm_kind
        if self.share_loop_norm and (shared is None or shared != parts["readout"].norm_kind):
            raise InputError(
                "share_loop_norm needs a norm of one kind in recurrence and readout (both 'rmsnorm'): there is no norm "
                "to share."
            )


_LAPTOP: Mapping[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "num_stack_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "dropout": 0.0,  # a few hundred steps see no window twice
}

# The paper's sizes (arXiv 2606.24898), one for a laptop's CPU, the same in the form that other runtimes know, and one
# between.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "laptop": _LAPTOP,
    "laptop-rope": {**_LAPTOP, "position_embedding": "rope", "norm_penalty_coef": 0.01},
    "small": {
        "hidden_size": 192,
        "num_stack_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 128,
    },
    "44m": {"hidden_size": 512, "num_stack_layers": 8, "num_attention_heads": 8},
    "129m": {"hidden_size": 768, "num_stack_layers": 12, "num_attention_heads": 12},
    "1.4b": {"hidden_size": 2048, "num_stack_layers": 20, "num_attention_heads": 16},
}


def preset_config(name: str, **overrides: Any) -> LoopedConfig:
    """Return the configuration of a named size, with `overrides` on top.

    Raises `InputError` for an unknown name.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return LoopedConfig(**{**PRESETS[name], **overrides})
