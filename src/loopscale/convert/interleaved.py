"""Rotary pairs: code that turns neighbouring channels of a head (2i, 2i + 1) and code that turns halves (i, i + H/2).

Both are one computation once the rows that make queries and keys are put in the other order.
"""

from jaxtyping import Shaped
from torch import Tensor

Rows = Shaped[Tensor, "rows ..."]


def to_halves(rows: Rows, heads: int) -> Rows:
    """Return the rows (of a weight or a bias) of queries or keys for code that turns halves of a head."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def to_neighbours(rows: Rows, heads: int) -> Rows:
    """Undo `to_halves`: the rows for code that turns neighbouring channels."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()
