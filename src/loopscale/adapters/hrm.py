"""HRM-Text (`hrm_text` of transformers) behind the four verbs.

A loop is one high cycle: the low stack runs `L_cycles` times on the sum of both states, then the high stack once. The
state has two parts, `high` and `low`, side by side. Each stack ends in a norm without weights; the state is what stands
before it (as for Ouro), `carry` is that norm, and the head reads norm(high). So neither scale is seen or kept, and
`low` is read by no exit: what it holds is felt in the next loop alone. The loss is cross-entropy at the last loop.
Text is audited as a response is read, causally; the prefix of an instruction, which its own code lets attend both
ways, is not told from it.
"""

from typing import final

import torch
from torch import nn

from loopscale.adapters.live import LiveLoop
from loopscale.adapters.repairs import class_of_transformers, load_whole
from loopscale.hf import causal_mask
from loopscale.objective import Terminal
from loopscale.stepping import Context, Injected, Logits, State, Tokens


@final
class HrmText(LiveLoop):
    """The four verbs of a live `HrmTextForCausalLM`, through the layers of its two stacks.

    Gradients flow through every cycle, where its own training keeps those of the last ones.
    """

    family = "HRM-Text"
    reads = "needs the tokens of its call for their positions"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config = self.model.config
        self.num_loops = self.trained_loops = config.H_cycles
        self.positions = config.max_position_embeddings
        self.supervision = Terminal()
        width = config.hidden_size
        self.parts = {"high": slice(0, width), "low": slice(width, 2 * width)}

    def prelude(self, tokens: Tokens) -> Injected:
        """Return the scaled embeddings."""
        return self.model.model.embed_tokens(tokens) * self.model.model.embedding_scale

    def initial_state(self, injected: Injected) -> State:
        """Return the embeddings and the low stack's initial state."""
        return torch.cat([injected, self.model.model.z_L_init.to(injected).expand_as(injected)], -1)

    def core(self, h: State, k: int, injected: Injected, tokens: Tokens) -> State:
        """Run one high cycle; of both states return what stands before the norm."""
        parts, stacks = h.chunk(2, -1), self.model.model
        high, low, raw = parts[0], parts[1], parts[1]
        for _ in range(self.model.config.L_cycles):
            raw = self._layers(stacks.L_module, low + high)
            low = stacks.L_module.final_norm(raw)
        return torch.cat([self._layers(stacks.H_module, high + low), raw], -1)

    def carry(self, z: State, k: int, context: Context | None = None, h: State | None = None) -> State:
        """Return both states normalised."""
        high, low = z.chunk(2, -1)
        stacks = self.model.model
        return torch.cat([stacks.H_module.final_norm(high), stacks.L_module.final_norm(low)], -1)

    def decode(self, z: State, injected: Injected, tokens: Tokens) -> Logits:
        """Return lm_head(norm(high))."""
        return self.model.lm_head(self.model.model.H_module.final_norm(z.chunk(2, -1)[0]))

    def _layers(self, stack: nn.Module, x: State) -> State:
        """Apply a stack's layers, without the norm at its end."""
        positions = torch.arange(x.shape[1], device=x.device)[None]
        mask = causal_mask(self.model.config, x, None, None, positions, slot=0)
        rotary = self.model.model.rotary_emb(x, positions)
        layers: list[nn.Module] = list(stack.layers)  # type: ignore[arg-type]  # a ModuleList
        for layer in layers:
            x = layer(x, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
        return x


def load_hrm(name: str) -> HrmText:
    """Load the live model of a folder or hub id. Raises `InputError` where it is not there as a whole."""
    return HrmText(load_whole(class_of_transformers("HrmTextForCausalLM"), name))
