"""Initial state: what the first loop receives. It is that of a token and its position, whatever the batch."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor, nn
from transformers import initialization as init

from loopscale.model.config import LoopedConfig
from loopscale.model.parts.part import noise_at, position_noise
from loopscale.stepping import Injected, Positions, State

SEED = 0  # of the noise


@final
class Embedded(nn.Module):
    """e: the input itself."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()

    def forward(self, e: Injected, positions: Positions) -> State:
        """Return `e`."""
        return e


@final
class Zeros(nn.Module):
    """0: the input enters through the injection alone."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()

    def forward(self, e: Injected, positions: Positions) -> State:
        """Return zeros of the shape of `e`."""
        return torch.zeros_like(e)


@final
class Noise(nn.Module):
    """N(0, 1), one draw per position from a fixed seed, in training as later: results repeat, cached or not.

    Positions past `max_position_embeddings` begin anew. The draws are no weights and are not saved.
    """

    draws: Tensor

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("draws", position_noise(config, SEED), persistent=False)

    def init_weights(self) -> None:
        """Draw, where a model is loaded without its buffers."""
        init.copy_(self.draws, position_noise(self.config, SEED))

    def forward(self, e: Injected, positions: Positions) -> State:
        """Return the draws of the positions."""
        return noise_at(self.draws, positions, e)


INITIAL_STATES: Mapping[str, Callable[[LoopedConfig], nn.Module]] = {
    "embedded": Embedded,
    "zeros": Zeros,
    "noise": Noise,
}
