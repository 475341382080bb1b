"""Configuration of the looped model: sizes, and what fills the slots of its loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import fields
from typing import Any, Literal, no_type_check

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from torch import dtype
from transformers import PreTrainedConfig

from loopscale.errors import InputError
from loopscale.hf import Importable
from loopscale.mechanism import choose
from loopscale.model.parts import LayerSizes
from loopscale.model.slots import Slots
from loopscale.model.validity import check_config, check_default_head
from loopscale.objective import SUPERVISIONS

OF_ODD_VALUES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)  # what transformers makes of them
NAMES = {"dtype", "torch_dtype", "attn_implementation", "_attn_implementation"}  # of transformers; or mappings to some
PartChoice = dict[str, Any] | str  # a part's name, or its name under `kind` with its arguments


@contextmanager
def odd_values_told(said: str = "not a loopscale model's configuration") -> Iterator[None]:
    """Raise `InputError` where transformers makes something else of values that are none of a configuration.

    Some it looks at only when the model is made: what reads one from a file is to stand in here too.
    """
    try:
        yield
    except InputError:
        raise
    except (StrictDataclassError, *OF_ODD_VALUES) as error:
        raise InputError(f"{said}: {str(error.__cause__ or error).rstrip('.')}.") from error


@strict
@no_type_check  # transformers checks the fields itself and wants its own __init__
class LoopedConfig(Importable, PreTrainedConfig):
    """Sizes and variants of a `LoopedForCausalLM`.

    `num_stack_layers` layers are applied `num_loops` times; `num_hidden_layers` is their product, and the layers before
    the loops and before one readout, so that caches and hidden-state indexing in transformers see the virtual depth.

    Args:
        vocab_size: tokens the model knows.
        hidden_size: channels of the state.
        intermediate_size: channels inside the feed-forward block; 4 times the hidden size by default.
        num_stack_layers: layers of the shared stack.
        num_prelude_layers: layers that run once, before the loops; what they make of the tokens is the input e.
        prelude_norm: the input e is normalised (RMSNorm) before it is injected (Parcae).
        num_coda_layers: layers that run once before each readout, and belong to it.
        coda_input: what they receive: the state, the state as it is read out (readout, Huginn), or mapped (linear).
        initial_state: what the first loop receives: the input (embedded), zeros, or noise, a fixed draw per position.
        num_attention_heads: heads of attention.
        num_key_value_heads: heads of keys and values; as many as heads by default.
        head_dim: channels of one head; hidden_size / num_attention_heads by default.
        attention_bias: queries, keys and values have biases.
        attention_output_bias: what attention writes has a bias.
        qk_norm: queries and keys are normalised (RMSNorm) in every head, before RoPE.
        qk_norm_whole: that norm is over all heads together, before they are cut (OLMo 2).
        qk_norm_eps: epsilon of that norm; that of every norm by default.
        value_embeddings: every other layer, the last included, adds an embedding of its token to the values, by a gate
            per head (Parcae, nanochat).
        mlp: feed-forward block: gated (swiglu), or two maps around GELU, exact (gelu) or by tanh (gelu_tanh, GPT-2's),
            or around the square of ReLU (relu2).
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
        relaxation: how far a loop goes to what its layers make of the state: full, fixed (damped), learned, ...
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
    prelude_norm: bool = False
    num_coda_layers: int = 0
    coda_input: PartChoice = "state"
    initial_state: Literal["embedded", "zeros", "noise"] = "embedded"
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    attention_output_bias: bool = False
    qk_norm: bool = False
    qk_norm_whole: bool = False
    qk_norm_eps: float | None = None
    value_embeddings: bool = False
    mlp: Literal["swiglu", "gelu", "gelu_tanh", "relu2"] = "swiglu"
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
    relaxation: PartChoice = "full"
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
            check_default_head(self)
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.trained_loops is None:
            self.trained_loops = self.num_loops
        if choose("supervision", self.supervision, SUPERVISIONS)[0].gated:
            self.exit_gate = True
        kwargs.pop("num_hidden_layers", None)
        check_config(self)
        super().__post_init__(**kwargs)

    @property
    def residual_part(self) -> PartChoice:
        """What joins a block to the stream."""
        return self.norm_placement if self.residual is None else self.residual

    @property
    def num_hidden_layers(self) -> int:
        """Virtual depth: layers of the stack times loops, and those before the loops and before one readout."""
        return self.slots().total

    @num_hidden_layers.setter
    def num_hidden_layers(self, value: int) -> None:
        self.num_loops = self.slots().loops_in(value)

    def slots(self, num_loops: int | None = None) -> Slots:
        """Return the cache layout of a call with that many loops (default: `num_loops`)."""
        loops = self.num_loops if num_loops is None else num_loops
        return Slots(
            core=self.num_stack_layers, loops=loops, prelude=self.num_prelude_layers, coda=self.num_coda_layers
        )

    def layer_sizes(self, layers: int, visits: int) -> LayerSizes:
        """Return what a residual may read, in a group of layers that run `visits` times each in a trained call."""
        depth = self.slots(self.trained_loops).total
        return LayerSizes(
            self.hidden_size,
            self.block_norm,
            self.rms_norm_eps,
            self.dropout,
            layers=layers,
            visits=visits,
            depth=depth,
        )

    @property
    def num_distinct_layers(self) -> int:
        """The layers that have weights of their own."""
        return self.num_prelude_layers + self.num_stack_layers + self.num_coda_layers

    def has_value_embedding(self, i: int) -> bool:
        """Return whether distinct layer i, in the order in which they run, adds an embedding of its token."""
        return self.value_embeddings and (self.num_distinct_layers - 1 - i) % 2 == 0

    def at_depth(self, num_loops: int) -> "LoopedConfig":
        """Return the configuration with another number of loops, for whoever sizes a cache by it."""
        config = copy(self)
        config.num_loops = num_loops
        return config

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a mapping as JSON and YAML have it, 1 for 1.0 included. Raises `InputError` for wrong values."""
        for name in NAMES & config_dict.keys():
            if not isinstance(config_dict[name], str | dict | dtype | None):
                raise InputError(f"{name} is {config_dict[name]!r}: give a name that transformers knows, or none.")
        floats = {f.name for f in fields(cls) if f.type is float}
        with odd_values_told():
            values: dict[str, Any] = {
                k: float(v) if k in floats and type(v) is int else v for k, v in config_dict.items()
            }
            if values.get("loop_weights"):
                values["loop_weights"] = [float(w) if type(w) is int else w for w in values["loop_weights"]]
            return super().from_dict(values, **kwargs)

    def validate_rope(self) -> None:
        """Leave models without RoPE alone, whatever their head size."""
        if self.position_embedding == "rope":
            super().validate_rope()
