"""Rotary pairs: code that turns neighbouring channels of a head (2i, 2i + 1) and code that turns halves (i, i + H/2).

Both are one computation once the rows that make queries and keys are put in the other order. Such code keeps the
angles among its weights.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from loopscale.errors import InputError
from loopscale.model import LoopedConfig

ANGLES = "freqs_cis"  # what the angles are called there
Rows = Shaped[Tensor, "rows ..."]


def to_halves(rows: Rows, heads: int) -> Rows:
    """Return the rows (of a weight or a bias) of queries or keys for code that turns halves of a head."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def to_neighbours(rows: Rows, heads: int) -> Rows:
    """Undo `to_halves`: the rows for code that turns neighbouring channels."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def angles_of(config: LoopedConfig) -> Float[Tensor, "1 positions 1 pairs 2"]:
    """Return cosines and sines of RoPE as such code keeps them, in float32."""
    assert config.head_dim is not None and config.rope_parameters is not None  # the config fills them
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    turns = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(turns, 1.0 / config.rope_parameters["rope_theta"] ** pairs)
    return torch.stack([angles.cos(), angles.sin()], -1)[None, :, None]


def require_angles(found: Tensor, config: LoopedConfig, source: str) -> None:
    """Raise `InputError` where a checkpoint's angles are not those of its config."""
    expected = angles_of(config)
    if found.shape != expected.shape or not torch.allclose(found.float(), expected, atol=1e-2):
        raise InputError(
            f"{source}: its {ANGLES} are not those of rope_base {(config.rope_parameters or {})['rope_theta']} and "
            f"block_size {config.max_position_embeddings} in its config: bring config and weights of one model."
        )
