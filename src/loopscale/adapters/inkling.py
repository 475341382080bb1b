"""Inkling-2 (`inkling2_loop` of transformers) behind the four verbs.

Layers are summed into blocks, and later ones read the blocks before them by attention. A loop (a pass) restarts from
what the layers before the loops made; of the pass before it sees messages, which attention draws from that pass's
blocks after a norm without weights, and which gates mix in. So the state of a pass is its blocks, each a part of its
own: `block 1`, `block 2`, ... The layers after the loops begin a block of their own and read the others normalised as
well, so no exit sees the scale of a block and no pass keeps it; an audit can find its mean and directions. The loss is
cross-entropy at the last pass. Text alone is audited, no images.
"""

from typing import Any, final

import torch
from torch import Tensor, nn

from loopscale.adapters.live import LiveLoop
from loopscale.adapters.repairs import class_of_transformers, load_whole
from loopscale.hf import causal_mask
from loopscale.objective import Terminal
from loopscale.stepping import Injected, Logits, State, Tokens


@final
class Inkling(LiveLoop):
    """The four verbs of a live `Inkling2LoopForCausalLM`, or of one that sees images too, through its layers.

    What the first pass receives is the state before the loops, in the place of the first block; it gets no messages.
    """

    family = "Inkling-2"
    reads = "restarts from the state before its loops in every pass"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config = self.model.config.get_text_config()
        self.first, self.last = config.loop_layer_index_start, config.loop_layer_index_end
        self.width, size = config.hidden_size, config.n_layers_per_attn_res_block
        blocks = (self.last - self.first) // size
        self.num_loops = self.trained_loops = config.loop_num_passes
        self.positions = config.max_position_embeddings
        self.supervision = Terminal()
        self.parts = {f"block {i + 1}": slice(i * self.width, (i + 1) * self.width) for i in range(blocks)}

    @property
    def text(self) -> Any:
        """The layers."""
        return self.model.get_decoder()

    def prelude(self, tokens: Tokens) -> Injected:
        """Run the layers before the loops; return the blocks they made and the state, side by side."""
        x = self.text.embed_tokens(tokens)
        x, blocks = self._layers(0, self.first, x, x.new_zeros(*x.shape[:-1], 0, x.shape[-1]))
        return torch.cat([blocks, x.unsqueeze(-2)], -2).flatten(-2)

    def initial_state(self, injected: Injected) -> State:
        """Return the state before the loops in the first block's place, zeros in the others'."""
        x = injected[..., -self.width :]
        return torch.cat([x, *(torch.zeros_like(x) for _ in range(len(self.parts) - 1))], -1)

    def core(self, h: State, k: int, injected: Injected, tokens: Tokens) -> State:
        """Run the looped layers from the state before the loops; return the blocks they make."""
        before = self._blocks(injected)
        messages = None if k == 0 else self._blocks(h)
        start = h[..., : self.width] if k == 0 else before[..., -1, :]
        x, blocks = self._layers(self.first, self.last, start, before[..., :-1, :], messages)
        made = blocks[..., before.shape[-2] :, :]  # behind those before the loops, and the state they begin from
        return torch.cat([made, x.unsqueeze(-2)], -2).flatten(-2)

    def decode(self, z: State, injected: Injected, tokens: Tokens) -> Logits:
        """Run the layers after the loops; return the logits, softly capped."""
        made = self._blocks(z)
        blocks = torch.cat([self._blocks(injected), made[..., :-1, :]], -2)
        x, blocks = self._layers(self.last, len(self.text.layers), made[..., -1, :], blocks)
        x = self.text.norm(self.text.final_input(blocks, x)[0]).to(z.dtype)
        return self.model.logit_softcap(self.model.lm_head(x).float())

    def _blocks(self, x: Tensor) -> Tensor:
        """Return (batch, seq, blocks * hidden) as (batch, seq, blocks, hidden)."""
        return x.unflatten(-1, (-1, self.width))

    def _layers(
        self, first: int, last: int, x: State, blocks: Tensor, messages: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Apply the layers first .. last - 1 to a state and the blocks behind it; `messages` are the last pass's."""
        positions = torch.arange(x.shape[1], device=x.device)[None]
        config, distance = self.text.config, positions.T - positions
        masks = {
            "full_attention": causal_mask(config, x, None, None, positions, slot=0),
            "sliding_attention": causal_mask(config, x, None, None, positions, slot=0, sliding=True),
        }
        for i, layer in enumerate(self.text.layers[first:last]):
            told = (
                () if messages is None else (self.text.message_input(messages[..., :-1, :], messages[..., -1, :], i),)
            )
            after = layer(
                x,
                blocks,
                *told,
                attention_mask=masks[layer.attention_type],
                relative_distance=distance,
                position_ids=positions,
            )
            if layer.is_block_boundary:
                blocks = torch.cat([blocks, x.unsqueeze(-2)], -2)
            x = after
        return x, blocks


def load_inkling(name: str, model_type: str) -> Inkling:
    """Load the live model of a folder or hub id. Raises `InputError` where it is not there as a whole."""
    form = "ForConditionalGeneration" if model_type == "inkling2_loop" else "ForCausalLM"
    return Inkling(load_whole(class_of_transformers(f"Inkling2Loop{form}"), name))
