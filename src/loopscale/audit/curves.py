"""Lemma 2 in a trained model: how far each loop moves a state along itself and around, far past the trained depth."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.audit.checks import check_presence, checked, runs_past_trained_depth
from loopscale.audit.report import PerLoop
from loopscale.audit.streams import LoopMeans
from loopscale.batches import Batch
from loopscale.stepping import Looped, State, evaluating, run_loops


@dataclass(frozen=True)
class PowerLaw:
    """The least-squares line of log y on log x: y ~ x^slope, and how much of the variance it explains."""

    slope: float
    r_squared: float
    points: int


@dataclass(frozen=True)
class LoopCurves:
    """Means over tokens along the loops; updates have one entry less than loops.

    scale: RMS s_k; norm: ||z_k||_2; drift: log s_{k+1} - log s_k; radial_increment: a_k = mean_c u_k,c (z_{k+1} -
    z_k)_c, which lemma 2 bounds; angular_step: ||u_{k+1} - u_k||_2, which it predicts to fall as 1 / s_k; product:
    s_k times the angular step; fit: the angular step against the scale (prediction: slope -1).
    """

    tokens: int
    trained_loops: int
    scale: PerLoop
    norm: PerLoop
    drift: PerLoop
    radial_increment: PerLoop
    angular_step: PerLoop
    product: PerLoop
    fit: PowerLaw | None


def loop_curves(model: Looped | Any, batches: Iterable[Batch | Any], num_loops: int = 30) -> LoopCurves:
    """Run `num_loops` loops and return the curves of lemma 2 (arXiv 2606.24898), streaming over batches and loops.

    Loops whose states are no longer finite are left out, and those past the trained depth of a model that cannot go on.

    Raises `InputError` for a wrong model or batches, as `audit` does.
    """
    check_presence(model)
    scales, norms, drifts, radial, angular = (LoopMeans() for _ in range(5))
    with evaluating(model):
        (inputs, _, _), windows = checked(model, batches)
        if not runs_past_trained_depth(model, inputs, model.num_loops):
            num_loops = min(num_loops, model.num_loops)
        for inputs, _, counted in windows:
            before: Tensor | None = None
            for k, z in enumerate(run_loops(model, inputs, num_loops)):
                if not torch.isfinite(z).all():
                    break
                length = torch.linalg.vector_norm(z, dim=-1)
                norms.add(k, length, counted)
                scales.add(k, length / z.shape[-1] ** 0.5, counted)
                if before is not None:
                    radial.add(k - 1, radial_increment(before, z), counted)
                    angular.add(k - 1, angular_step(before, z), counted)
                    drifts.add(k - 1, length.log() - torch.linalg.vector_norm(before, dim=-1).log(), counted)
                before = z
    s, turns = scales.means(), angular.means()
    return LoopCurves(
        tokens=norms.tokens,
        trained_loops=model.num_loops,
        scale=s,
        norm=norms.means(),
        drift=drifts.means(),
        radial_increment=radial.means(),
        angular_step=turns,
        product=tuple(x * y for x, y in zip(s, turns, strict=False)),
        fit=power_law(s[: len(turns)], turns),
    )


def radial_increment(z: State, after: State) -> Float[Tensor, "batch seq"]:
    """Return a = mean_c u_c (after - z)_c with u = z / s: the growth of the scale to first order."""
    return (unit_rms(z) * (after - z)).mean(-1)


def angular_step(z: State, after: State) -> Float[Tensor, "batch seq"]:
    """Return ||u' - u||_2 of the directions (unit RMS, so at most 2 sqrt(hidden))."""
    return torch.linalg.vector_norm(unit_rms(after) - unit_rms(z), dim=-1)


def unit_rms(z: State) -> State:
    """Return the direction u = z / s."""
    return z / z.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(z.dtype).tiny)


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """Fit log y on log x by least squares; None with fewer than 3 points or an `x` that does not vary."""
    points = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if a > 0 and b > 0]
    if len(points) < 3:
        return None
    across, up = torch.tensor(points, dtype=torch.float64).T
    across, up = across - across.mean(), up - up.mean()
    variance, total = float(across @ across), float(up @ up)
    if variance == 0 or total == 0:
        return None
    slope = float(across @ up) / variance
    return PowerLaw(slope, slope**2 * variance / total, len(points))
