"""Backbone: the loop without its head, on transformers' base class. `embed`, `step`, `carry` and their context.

Letters: B batch, T tokens, D hidden.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache

from loopscale.context import Layout
from loopscale.errors import InputError
from loopscale.hf import RemoteCode, RotaryEmbedding, causal_mask
from loopscale.model.blocks import BranchLinear, LoopedAttention, LoopedLayer, build_layers
from loopscale.model.config import LoopedConfig
from loopscale.model.outputs import Recorder
from loopscale.model.parts import CARRIES, INJECTIONS, RELAXATIONS, IdentityLinear, Part, build_part
from loopscale.model.parts.initial import INITIAL_STATES, Noise
from loopscale.model_card import Known, card_of, write_card
from loopscale.stepping import Context, Injected, Positions, State, Tokens


class LoopedPreTrainedModel(RemoteCode, PreTrainedModel):
    """Loading, saving and initialising, as transformers does it."""

    config: LoopedConfig
    config_class = LoopedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("LoopedLayer",)
    _skip_keys_device_placement = ("cache", "past_key_values")
    # what `forward` can be asked for, by the module that makes it
    _can_record_outputs: dict[str, type[nn.Module]] = {  # noqa: RUF012
        "hidden_states": LoopedLayer,
        "attentions": LoopedAttention,
    }
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    # servers with an attention of their own (vLLM, SGLang) give a module one cache; here every loop needs its own
    _supports_attention_backend = False
    _can_compile_fullgraph = True

    def write_card(self, folder: Path, known: Known | None = None) -> None:
        """Write README.md into a folder of this model, unless somebody's own is there: what is `known`, what is not."""
        write_card(folder, card_of(self.config, self.num_parameters(), known))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Part | IdentityLinear | Noise):
            module.init_weights()
        elif self.config.init == "normal" or not isinstance(module, nn.Linear | nn.Embedding):
            super()._init_weights(module)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        else:  # torch's own default: uniform within 1 / sqrt(fan in), the paper's; its norm growth depends on it
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)
        if isinstance(module, BranchLinear) and module.initial_gain != 1:
            init.copy_(module.weight, module.initial_gain * module.weight)


class LoopedModel(LoopedPreTrainedModel):
    """The loop without its head: `embed`, `step` and `carry` of the four verbs."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.position_embedding == "learned"
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.rotary_emb = None if learned else RotaryEmbedding(config)
        self.embedding_scale = config.embedding_scale
        self.dropout = nn.Dropout(config.dropout)
        self.slots = config.slots()  # whatever the loops of a call: those of the stack do not depend on their number
        self.has_prelude, self.has_coda = config.num_prelude_layers > 0, config.num_coda_layers > 0
        self.prelude = build_layers(config, config.num_prelude_layers)
        core, loops = config.num_prelude_layers, config.trained_loops or config.num_loops
        self.prelude_norm: nn.Module = nn.Identity()
        if config.prelude_norm:
            self.prelude_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layers = build_layers(config, config.num_stack_layers, loops, first=core)
        self.coda = build_layers(config, config.num_coda_layers, first=core + config.num_stack_layers)
        self.injection = build_part("injection", config.injection, INJECTIONS, config)
        self.relaxation = build_part("relaxation", config.relaxation, RELAXATIONS, config)
        self.recurrence = build_part("recurrence", config.recurrence, CARRIES, config)
        self.reads_injected = self.injection.reads_injected or self.recurrence.reads_injected  # in a loop
        self.initial_state = INITIAL_STATES[config.initial_state](config)
        self.post_init()

    @property
    def loop_parts(self) -> Mapping[str, Part]:
        """The parts that run in every loop, by their slot."""
        layer: Any = self.layers[0]
        return {
            "injection": self.injection,
            "residual": layer.attention_residual,
            "relaxation": self.relaxation,
            "recurrence": self.recurrence,
        }

    def context(
        self,
        tokens: Tokens | None,
        attention_mask: Tensor | None = None,
        position_ids: Positions | None = None,
        cache: Cache | None = None,
        inputs_embeds: State | None = None,
        recorder: Recorder | None = None,
        layout: Layout | None = None,
    ) -> Context:
        """Return what every loop of a call on these tokens shares: mask, positions, cache, and the input e.

        `attention_mask` is transformers' (batch, seen + seq) mask of real tokens; `position_ids` default to 0, 1, ...
        after what the cache has seen. `inputs_embeds` may stand for the tokens' embeddings. Layers before the loops run
        here, once. `layout` says where a cache holds the slots of the layers before a readout.
        """
        like = self.like(tokens) if inputs_embeds is None else inputs_embeds
        mask = causal_mask(self.config, like, attention_mask, cache, position_ids, slot=0)
        positions = self.positions(like, cache) if position_ids is None else position_ids
        rotary = self.rotary(like, positions)
        return self.with_input(Context(tokens, None, mask, positions, rotary, cache, layout, recorder), inputs_embeds)

    def rotary(self, like: Tensor, positions: Positions) -> tuple[Tensor, Tensor] | None:
        """Return the cosines and sines of RoPE at these positions, where there is one, as precise as `like`."""
        return None if self.rotary_emb is None else self.rotary_emb(like, positions)

    def with_input(self, context: Context, inputs_embeds: State | None = None) -> Context:
        """Return the context with the input e of its tokens, if this model reads it again or makes it with layers."""
        if not self.reads_injected and not self.has_prelude:
            return context
        return replace(context, injected=self._enter(context.tokens, inputs_embeds, context))

    def positions(self, h: State, cache: Cache | None = None) -> Positions:
        """Return 0, 1, ... after what the cache has seen."""
        seen = 0 if cache is None else cache.get_seq_length(0)
        return torch.arange(h.shape[1], device=h.device)[None] + seen

    def embed(
        self, input_ids: Tokens | None, context: Context | None = None, inputs_embeds: State | None = None
    ) -> State:
        """Return what the first loop receives, (batch, seq, hidden): the input e, unless `initial_state` says other."""
        if context is None:
            context = self.context(input_ids, inputs_embeds=inputs_embeds) if self.has_prelude else Context(input_ids)
        e = context.injected
        if e is None:
            e = self._enter(input_ids, inputs_embeds, context)
        return self.initial_state(e, self.positions(e) if context.positions is None else context.positions)

    def step(self, h: State, k: int, context: Context | None = None) -> State:
        """Apply the shared stack once. Without a `context`: plain causal attention from position 0."""
        if context is None:
            self._require_context("step")
            mask, positions = causal_mask(self.config, h, None, None, None, slot=0), self.positions(h)
            context = Context(None, None, mask, positions, self.rotary(h, positions))
        slot = self.slots.at(k, 0)
        return self.relaxation(
            h, lambda x: _through(self.layers, self.injection(x, context), slot, context), k, context
        )

    def finish(self, z: State, k: int, context: Context | None = None) -> State:
        """Return what the layers before the readout of exit k, where there are any, make of what they receive."""
        if not self.has_coda:
            return z
        if context is None:
            raise InputError(
                "this model has layers before its readout, which look at the tokens of a call: make context = "
                "model.context(ids) and hand it to readout as `context`."
            )
        layout = self.slots.every_exit if context.layout is None else context.layout
        return _through(self.coda, z, 0 if context.cache is None else layout.at_exit(k, 0), context)

    def carry(self, z: State, k: int, context: Context | None = None, h: State | None = None) -> State:
        """Return what loop k + 1 receives of the state of loop k, which received `h`."""
        part = self.recurrence
        if context is None and part.reads_injected:
            self._require_context("carry")
        if h is None and part.reads_received:
            raise InputError("this model's recurrence reads what the loop received: call carry(z, k, context, h).")
        return part(z, h, k, context)

    def _require_context(self, verb: str) -> None:
        if self.reads_injected:
            raise InputError(
                f"this model reads its input again in every loop: make context = model.context(ids) and hand it to "
                f"{verb} as `context`."
            )

    def _enter(self, tokens: Tokens | None, inputs_embeds: State | None, context: Context) -> Injected:
        """Return the input e: token plus (learned) position embeddings, through the layers before the loops."""
        e = self.embed_tokens(tokens) if inputs_embeds is None else inputs_embeds
        if self.embedding_scale != 1:
            e = e * self.embedding_scale
        table = self.embed_positions
        if table is not None:
            room = table.num_embeddings
            if e.shape[1] > room:
                raise InputError(
                    f"{e.shape[1]} tokens are more than the {room} positions this model has "
                    "(max_position_embeddings): shorten the input."
                )
            e = e + table(self.positions(e) if context.positions is None else context.positions)
        if self.dropout.training:
            e = self.dropout(e)
        if context.recorder is not None:
            context.recorder.begin(e)
        if self.has_prelude:
            e = _through(self.prelude, e, self.slots.before(0), context)
        return self.prelude_norm(e)

    def like(self, tokens: Tokens | None) -> State:
        """Return a tensor of the embeddings' shape, device and precision, without their memory or their weight."""
        assert tokens is not None
        one = torch.empty((), dtype=self.dtype, device=tokens.device)
        return one.expand(*tokens.shape, self.config.hidden_size)

    def forward(self, input_ids: Tokens, **kwargs: Any) -> Any:
        """Not a model of its own: states have no meaning without the readout that was trained with them."""
        raise InputError("LoopedModel has no forward: use LoopedForCausalLM (AutoModelForCausalLM).")


def _through(layers: nn.ModuleList, x: State, slot: int, context: Context) -> State:
    """Apply layers whose slots in the cache follow each other from `slot` on."""
    for i, layer in enumerate(layers):
        x, attention = layer(x, slot + i, context)
        if context.recorder is not None:
            context.recorder.add(x, attention)
    return x
