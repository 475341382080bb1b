"""The two second moments that a search for blind directions is made of, the problem they pose, and its null."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.audit.measurement.derivatives import unit
from loopscale.audit.measurement.streams import Counted
from loopscale.stepping import State

Found = tuple[int, int, tuple[tuple[str, int], ...], list[Tensor]]  # of moments; tensors stay on their device
Square = Float[Tensor, "hidden hidden"]


@final
class Moments:
    """Running second moments of unit gradients, and of random moves with what one more loop makes of them."""

    def __init__(self) -> None:
        self.tokens, self.looked = 0, 0
        self.told: dict[tuple[str, int], Tensor | int] = {}  # gradients by loss and loop, counted on the device
        self._moves: Tensor | int = 0
        self._visible: Tensor | float = 0.0
        self._retained: Tensor | float = 0.0
        self._moved: Tensor | float = 0.0

    def see(self, loss: str, k: int, gradient: State, counted: Counted) -> None:
        """Take in the gradients of one loss at loop k, of the tokens that count and can be told from rounding."""
        g = _of(unit(gradient), counted)
        self._visible = self._visible + g.T @ g
        self.told[loss, k] = self.told.get((loss, k), 0) + counted.sum()

    def keep(self, move: State, left: State, counted: Counted) -> None:
        """Take in random moves and what is left of them after one more loop."""
        w, moved = _of(move, counted), _of(left, counted)
        self._retained = self._retained + w.T @ moved
        self._moved = self._moved + moved.T @ moved
        self._moves = self._moves + counted.sum()

    def found(self) -> Found:
        """Return what was taken in, for others."""
        names = tuple(self.told)
        counts = torch.stack([torch.as_tensor(count) for count in self.told.values()]) if names else torch.zeros(0)
        moved = self._visible, self._retained, self._moved, self._moves
        return self.tokens, self.looked, names, [counts, *map(torch.as_tensor, moved)]

    def take_in(self, found: Found) -> None:
        """Add what others took in."""
        tokens, looked, names, (counts, visible, retained, moved, moves) = found
        self.tokens, self.looked = self.tokens + tokens, self.looked + looked
        for name, count in zip(names, counts, strict=True):
            self.told[name] = self.told.get(name, 0) + count
        self._visible, self._retained = self._visible + visible, self._retained + retained
        self._moved, self._moves = self._moved + moved, self._moves + moves

    @property
    def gradients(self) -> int:
        """Gradients that were taken in."""
        return int(sum(self.told.values()))

    @property
    def moves(self) -> int:
        """Moves that were taken in."""
        return int(self._moves)

    @property
    def visible(self) -> Square:
        """Return A; its trace is at most 1."""
        return torch.as_tensor(self._visible / self.gradients)

    @property
    def retained(self) -> Square:
        """Return the symmetric part of C: antisymmetric parts leave nothing along a direction."""
        mean = torch.as_tensor(self._retained / self.moves)
        return (mean + mean.T) / 2

    def retained_share(self, directions: Float[Tensor, "hidden some"]) -> float:
        """Return the share of the mean Jacobian's trace that some orthonormal directions have; 0 where it has none."""
        whole = float(self.retained.trace())
        return float((directions.T @ self.retained @ directions).trace()) / whole if whole else 0.0

    def retention_se(self, v: Tensor) -> float:
        """Return the standard error of v^T C v: of the mean of <w, v> <Jw, v> over independent signs w."""
        # its variance is |J^T v|^2 + (v^T J v)^2 less a term that channels of v alone make
        squares = float(v @ torch.as_tensor(self._moved / self.moves) @ v)
        return math.sqrt((squares + float(v @ self.retained @ v) ** 2) / self.moves)


def _of(vectors: State, counted: Counted) -> Float[Tensor, "tokens hidden"]:
    """Return the vectors of the tokens that count, in float64, with zeros for the others: picking them would wait."""
    return torch.where(counted[..., None], vectors, 0.0).flatten(0, 1).double()


def most_retained_per_visible(moments: Moments, floor: float) -> Square:
    """Return unit eigenvectors of C v = lambda (A + floor^2) v as columns, largest magnitude of lambda first.

    A negative lambda is retained with its sign turned at every loop.
    """
    A = moments.visible
    L = torch.linalg.cholesky(A + floor**2 * torch.eye(len(A)).to(A))
    whitened = torch.linalg.solve_triangular(L, moments.retained, upper=False)
    whitened = torch.linalg.solve_triangular(L, whitened.T, upper=False)
    eigenvalues, y = torch.linalg.eigh((whitened + whitened.T) / 2)
    v = torch.linalg.solve_triangular(L.T, y[:, eigenvalues.abs().argsort(descending=True)], upper=True)
    return v / torch.linalg.vector_norm(v, dim=0)


def null_visibility(fitted: int, held_out: int, hidden: int) -> float:
    """Return the held-out visibility of the direction least visible to as many gradients of no preferred direction."""
    seeded = torch.Generator().manual_seed(0)

    def moment(count: int) -> Square:
        total = torch.zeros(hidden, hidden, dtype=torch.float64)
        for start in range(0, count, 8192):
            g = torch.randn(min(8192, count - start), hidden, generator=seeded, dtype=torch.float64)
            g = g / torch.linalg.vector_norm(g, dim=1, keepdim=True)
            total += g.T @ g
        return total / count

    least = torch.linalg.eigh(moment(fitted))[1][:, 0]
    return max(float(least @ moment(held_out) @ least), 0.0) ** 0.5
