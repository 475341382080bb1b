"""Looped transformer as a Hugging Face model. `LoopedForCausalLM.forward` is the four verbs in a loop.

Letters: B batch, T tokens, D hidden, V vocabulary, K loops.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils.generic import can_return_tuple

from loopscale.errors import InputError
from loopscale.facts import Facts
from loopscale.hf import CACHE, GenerationHooks, one_cache_name
from loopscale.model.backbone import LoopedModel, LoopedPreTrainedModel
from loopscale.model.config import LoopedConfig
from loopscale.model.facts import looped_facts
from loopscale.model.outputs import Keywords, LoopedOutput, kept, recorder_of
from loopscale.model.parts import CODA_INPUTS, READOUTS, build_part
from loopscale.model.slots import check_depth, check_loops
from loopscale.model.unrolled import is_final, unroll, unrolled_loss
from loopscale.objective import (
    IGNORED,
    Passes,
    Penalty,
    Supervision,
    build_supervision,
    compiled_passes,
    differentiate,
    exit_distribution,
    next_tokens,
    penalties_of,
)
from loopscale.state import row_norms
from loopscale.stepping import Context, Logits, Positions, State, Tokens
from loopscale.system.precision import widened


class LoopedForCausalLM(LoopedPreTrainedModel, GenerationHooks, GenerationMixin):
    """A looped language model: one stack of layers applied K times, decoded after every loop (arXiv 2606.24898)."""

    # transformers reads this from the class
    _tied_weights_keys: dict[str, str] = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    checkpoint_loops = False  # recompute each loop in the backward pass instead of keeping its activations
    head_passes: Passes = staticmethod(differentiate)

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        self.model = LoopedModel(config)
        self.coda_input = build_part("coda_input", config.coda_input, CODA_INPUTS, config)
        self.readout_norm = build_part("readout", config.readout, READOUTS, config)
        if config.share_loop_norm:
            self.model.recurrence.norm = self.readout_norm.norm
            self._tied_weights_keys = {
                **self._tied_weights_keys,
                "model.recurrence.norm.weight": "readout_norm.norm.weight",
            }
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.exit_gate = nn.Linear(config.hidden_size, 1) if config.exit_gate else None
        self.post_init()

    @property
    def num_loops(self) -> int:
        """K, the loops a call runs unless it says otherwise."""
        return self.config.num_loops

    @property
    def trained_loops(self) -> int:
        """The loops that the loss saw."""
        return self.config.trained_loops or self.num_loops

    def facts(self) -> Facts:
        """Return what is known of this model beside its verbs."""
        return looped_facts(self)

    @property
    def reads_received(self) -> bool:
        """Whether the recurrence reads what a loop received."""
        return self.model.recurrence.reads_received

    def context(
        self,
        tokens: Tokens,
        attention_mask: Tensor | None = None,
        position_ids: Positions | None = None,
        cache: Cache | None = None,
        num_loops: int | None = None,
    ) -> Context:
        """Return what the verbs of a call on these tokens share (see `LoopedModel.context`)."""
        layout = None if cache is None else self.config.slots(num_loops).every_exit
        return self.model.context(tokens, attention_mask, position_ids, cache, layout=layout)

    def embed(self, input_ids: Tokens, context: Context | None = None) -> State:
        """Return what the first loop receives (verb 1)."""
        return self.model.embed(input_ids, context)

    def step(self, h: State, k: int, context: Context | None = None) -> State:
        """Apply the shared stack once (verb 2)."""
        return self.model.step(h, k, context)

    def carry(self, z: State, k: int, context: Context | None = None, h: State | None = None) -> State:
        """Return what loop k + 1 receives (verb 3); `h` is what loop k received, for a recurrence that reads it."""
        return self.model.carry(z, k, context, h)

    def readout(self, z: State, k: int, context: Context | None = None, *, last: bool | None = None) -> Logits:
        """Return the logits of exit k (verb 4), through the layers before it, which need the `context` of the call.

        `last`: read it as the final exit (default: where it is that).
        """
        return self.lm_head(self.readout_state(z, k, context, last))

    def readout_state(self, z: State, k: int, context: Context | None = None, last: bool | None = None) -> State:
        """Return what the LM head sees of the state."""
        norm, last = self.readout_norm, k + 1 == self.trained_loops if last is None else last
        if self.model.has_coda:
            z = self.model.finish(self.coda_input(z, partial(norm, k=k, last=last)), k, context)
        return norm(z, k=k, last=last)

    @property
    def readings(self) -> Mapping[str, bool | None]:
        """The ways to read an exit, by name: the `last` that `readout` is told, None for what training saw."""
        return self.readout_norm.readings

    def exit_probability(
        self, z: State, k: int, context: Context | None = None, h: State | None = None
    ) -> Float[Tensor, "batch seq"]:
        """Return the gate's probability of leaving at loop k once it is reached (it reads the carried state)."""
        if self.exit_gate is None:
            raise InputError("this model has no exit gate: train it with exit_gate=true.")
        logits = self.exit_gate(self.carry(z, k, context, h)).squeeze(-1)
        return torch.sigmoid(logits.to(widened(logits.dtype)))  # products of these are to sum to 1

    @one_cache_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_loops: int | None = None,
        output_states: bool = False,
        supervised_exits_only: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        gradient_loops: int | None = None,
        progress: float | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[Keywords],
    ) -> LoopedOutput:
        """Run `num_loops` loops (default: the config's) and decode the last, or compute the loss of every exit.

        `labels` are aligned with `input_ids` and shifted here; `shift_labels=`, a keyword outside the signature (stock
        Trainers take every label named in it for required), are already the next tokens; -100 is ignored.
        `supervised_exits_only` leaves out what a training step does not need: exits that the loss does not see, and
        the logits. The gradient goes through the last `gradient_loops` loops (default: all); earlier ones keep no
        activations. `progress` is the share of training that is done, for a supervision that changes on the way. In
        training the last loop that runs is read as the final one. `cache` and `past_key_values` are
        two names of one thing: transformers uses the first from 5.24 on. Without `use_cache` a cache is made where the
        config says so, except in training. `output_hidden_states` and `output_attentions` are transformers'. Raises
        `InputError` for fewer than 1 loop or more tokens than positions.
        """
        K = self.num_loops if num_loops is None else num_loops
        check_loops(K)
        if gradient_loops is not None:
            check_loops(gradient_loops, "gradient_loops")
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds.")
        if cache is not None and past_key_values is not None:
            raise InputError("give either cache or past_key_values: they are two names of one thing.")
        cache = past_key_values if cache is None else cache
        if kwargs.get("shift_labels") is not None:
            labels = kwargs["shift_labels"]
        elif labels is not None:
            labels = next_tokens(labels)
        if inputs_embeds is None:
            inputs_embeds = self.model.embed_tokens(input_ids)
        if use_cache is None:
            use_cache = self.config.use_cache
        if cache is None and use_cache and not self.training:
            every_exit = self.config.num_coda_layers and labels is not None  # slots are made as exits are read
            cache = DynamicCache() if every_exit else DynamicCache(config=self.config.at_depth(K))
        slots, supervision = self.config.slots(K), self.supervision.at(progress)
        read = [labels is not None and (not supervised_exits_only or supervision.supervises(k, K)) for k in range(K)]
        recorder = recorder_of(self.config, kwargs, slots.total + 1)
        wanted = labels is None or not supervised_exits_only  # the logits
        exits = [k for k in range(K) if read[k] or (k + 1 == K and (wanted or recorder is not None))]
        layout = slots.every_exit
        if cache is not None:
            check_depth(cache, layout, exits)
        context = self.model.context(input_ids, attention_mask, position_ids, cache, inputs_embeds, recorder, layout)
        h = self.model.embed(input_ids, context, inputs_embeds)
        unrolled = unroll(self, h, context, read, gradient_loops or K)
        loss = loop_losses = None
        if labels is not None:
            count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
            count = count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)  # no label: no gradient either
            loss, loop_losses = unrolled_loss(self, supervision, unrolled, labels, count)
        states, gates, seen = unrolled.states, unrolled.gates, unrolled.exit_inputs[-1]
        if seen is None and exits[-1:] == [K - 1]:
            seen = self.readout_state(states[-1], K - 1, context, is_final(self, K - 1, K))
        return LoopedOutput(
            loss=loss,
            logits=self.lm_head(kept(seen, logits_to_keep)) if wanted and seen is not None else None,
            **{CACHE: cache},
            loop_losses=loop_losses,
            loop_norms=row_norms(states, attention_mask),
            states=tuple(states) if output_states else None,
            exit_probabilities=None if gates is None else exit_distribution(gates).movedim(0, -1),
            **({} if recorder is None or seen is None else recorder.take(seen)),
        )

    def compile_regions(self, **options: Any) -> None:
        """Compile what a training step runs most: the layers, one graph for all of them, every loop and depth, and
        the head's passes over logits. `options` are torch.compile's.
        """
        for layer in (*self.model.prelude, *self.model.layers, *self.model.coda):
            layer.compile(fullgraph=True, **options)
        self.head_passes = compiled_passes(**options)

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """The losses of the state beside the exits'."""
        return penalties_of(self.config)

    @property
    def supervision(self) -> Supervision:
        """Which exits the loss sees, and how they make one number."""
        return build_supervision(self.config.supervision, self.config.loop_weights, self.config.entropy_coef)

    def check_prompt(self, width: int) -> None:
        """Raise `InputError` for an empty prompt, before transformers stumbles over it."""
        if width == 0:
            raise InputError("the prompt is empty: give at least one token.")

    def config_of_call(self, options: dict[str, Any], length: int) -> LoopedConfig:
        """Return the configuration at the depth of this call to `generate`. Raises `InputError` for a text too long."""
        K = self.num_loops if options.get("num_loops") is None else options["num_loops"]
        check_loops(K)
        mask = options.get("attention_mask")
        self.check_positions(length - (0 if mask is None else int((mask == 0).sum(1).min())))
        return self.config.at_depth(K)

    def check_positions(self, needed: int) -> None:
        """Raise `InputError` if `needed` positions are more than a learned table holds. RoPE has no such end."""
        room = self.config.max_position_embeddings
        if self.model.embed_positions is not None and needed > room:
            raise InputError(
                f"prompt and new tokens need {needed} positions, but this model has {room} (max_position_embeddings): "
                "shorten the prompt or ask for fewer new tokens."
            )
