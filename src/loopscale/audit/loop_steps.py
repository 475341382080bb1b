"""Lemma 2 in a trained model: how far each loop moves a state along itself and around, far past the trained depth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, linear_regression
from typing import Any

import torch
from torch import Tensor

from loopscale.audit.findings import ByLoop
from loopscale.audit.measurement.checks import checked, runs_past_trained_depth
from loopscale.audit.measurement.derivatives import comparable
from loopscale.audit.measurement.streams import LoopMeans, Sums, added_up
from loopscale.batches import Batches, Window
from loopscale.facts import depth_of
from loopscale.processes import each
from loopscale.state import angular_step, norm, radial_step, scale
from loopscale.stepping import Looped, evaluating, run_loops

LEAST_RANGE = 1e-4  # of log x: a scale that a norm holds varies by rounding, and a slope over that says nothing


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
    s_k times the angular step; fit: the angular step against the scale (prediction: slope -1). directed: the tokens of
    every update that have a direction, which drift, increment and angular step are means over.
    """

    tokens: int
    trained_loops: int
    scale: ByLoop
    norm: ByLoop
    drift: ByLoop
    radial_increment: ByLoop
    angular_step: ByLoop
    product: ByLoop
    fit: PowerLaw | None
    directed: tuple[int, ...] = ()


def loop_curves(model: Looped | Any, batches: Batches, num_loops: int = 30) -> LoopCurves:
    """Run `num_loops` loops and return the curves of lemma 2 (arXiv 2606.24898), streaming over batches and loops.

    Loops whose states are no longer finite are left out, and those past the trained depth of a model that cannot go on.

    Raises `InputError` for a wrong model or batches, as `audit` does.
    """
    num_loops = depth_of(model, num_loops)
    with evaluating(model):
        first, windows = checked(model, batches)
        if not runs_past_trained_depth(model, first.inputs, model.num_loops):
            num_loops = min(num_loops, model.num_loops)
        found = added_up(each(windows, lambda window: _of_batch(model, window, num_loops)))
    norms, scales, drifts, radial, angular = found
    loops = sum(map(bool, norms.counts()))  # that are finite
    updates = max(loops - 1, 0)
    s, turns = scales.means()[:loops], angular.means()[:updates]
    return LoopCurves(
        tokens=norms.tokens,
        trained_loops=model.num_loops,
        scale=s,
        norm=norms.means()[:loops],
        drift=drifts.means()[:updates],
        radial_increment=radial.means()[:updates],
        angular_step=turns,
        product=tuple(x * y for x, y in zip(s, turns, strict=False)),
        fit=power_law(s[: len(turns)], turns),
        directed=angular.counts()[:updates],
    )


def _of_batch(model: Looped, window: Window, num_loops: int) -> list[Sums]:
    """Return the sums of norms, scales, drifts, radial increments and angular steps of one batch."""
    norms, scales, drifts, radial, angular = several = [LoopMeans() for _ in range(5)]
    before: Tensor | None = None
    counted = window.counted
    for k, z in enumerate(run_loops(model, window.inputs, num_loops)):
        counted = counted & torch.isfinite(z).all()  # from here on none: asking would wait at every loop
        norms.add(k, norm(z), counted)
        scales.add(k, scale(z), counted)
        if before is not None:
            # a state of no length has no direction, nor a logarithm
            both = comparable(norm(before), counted) & comparable(norm(z), counted)
            radial.add(k - 1, radial_step(before, z), both)
            angular.add(k - 1, angular_step(before, z), both)
            drifts.add(k - 1, torch.where(both, norm(z) / norm(before), 1.0).log(), both)
        before = z
    return [means.sums() for means in several]


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """Fit log y on log x by least squares; None with fewer than 3 points or an `x` that hardly varies."""
    points = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if 0 < a < math.inf and 0 < b < math.inf]
    if len(points) < 3:
        return None
    across, up = zip(*points, strict=True)
    if max(across) - min(across) < LEAST_RANGE:
        return None
    try:
        return PowerLaw(linear_regression(across, up).slope, correlation(across, up) ** 2, len(points))
    except StatisticsError:  # one of them does not vary
        return None
