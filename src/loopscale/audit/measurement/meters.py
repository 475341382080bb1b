"""Meters of one audit: per loop, the scale, what the losses feel of a coordinate and what the next loop keeps of it."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from loopscale.audit.coordinates import Coordinate
from loopscale.audit.findings import ByLoop, CoordinateReport, ScaleStats
from loopscale.audit.measurement.derivatives import alignment, comparable, push
from loopscale.audit.measurement.streams import Counted, LoopMeans, Sample, Sums
from loopscale.audit.verdict import Thresholds, Verdict, judge, retention_per_loop
from loopscale.errors import InputError
from loopscale.objective import Losses
from loopscale.state import norm
from loopscale.stepping import State

ScaleSums = tuple[Sums, Sums, Tensor, Tensor]  # of norms, of scales; (loops, batch, seq) norms, and which count


@final
class ScaleMeter:
    """Scale statistics of every loop."""

    def __init__(self) -> None:
        self.norms, self.scales = LoopMeans(), LoopMeans()
        self.samples: list[Sample] = []
        self._waiting: list[tuple[Tensor, Counted]] = []  # norms of the batch under way, loop by loop

    def add(self, k: int, z: State, counted: Counted) -> None:
        """Take in the states of loop k, the loops of a batch in their order."""
        norms = norm(z)
        self.norms.add(k, norms, counted)
        self.scales.add(k, norms / z.shape[-1] ** 0.5, counted)
        self._waiting.append((norms.detach(), counted))

    def found(self) -> ScaleSums:
        """Return what was measured, of one batch; its norms come to the host together."""
        norms, counted = (torch.stack(column).cpu() for column in zip(*self._waiting, strict=True))
        return self.norms.sums(), self.scales.sums(), norms, counted

    def take_in(self, found: ScaleSums) -> None:
        """Add the figures of one batch."""
        of_norms, of_scales, norms, counted = found
        self.norms.take_in(of_norms)
        self.scales.take_in(of_scales)
        self.samples += [Sample() for _ in range(len(norms) - len(self.samples))]
        for sample, of_loop, which in zip(self.samples, norms, counted, strict=True):
            sample.add(of_loop[which])

    def stats(self) -> tuple[ScaleStats, ...]:
        """Return the statistics of every loop."""
        return tuple(
            ScaleStats(norm, rms, sample.quantile(0.5), sample.quantile(0.99), sample.quantile(1.0))
            for norm, rms, sample in zip(self.norms.means(), self.scales.means(), self.samples, strict=True)
        )


@final
class CoordinateMeter:
    """The running figures of one coordinate."""

    def __init__(self, coordinate: Coordinate, losses: Losses, configured: bool) -> None:
        self.coordinate = coordinate
        self.losses = losses
        self.configured = configured
        self.seen = {loss.name: LoopMeans() for loss in losses}
        self.nats, self.abs_nats, self.value, self.drift = LoopMeans(), LoopMeans(), LoopMeans(), LoopMeans()
        self.kept, self.log_kept, self.carried = LoopMeans(), LoopMeans(), LoopMeans()

    def anew(self) -> "CoordinateMeter":
        """Return a meter of the same coordinate that has measured nothing."""
        return CoordinateMeter(self.coordinate, self.losses, self.configured)

    def found(self) -> list[Sums]:
        """Return what was measured, for another meter of the same coordinate."""
        return [means.sums() for means in self._means()]

    def take_in(self, found: Sequence[Sums]) -> None:
        """Add the figures of a meter of the same coordinate."""
        for means, sums in zip(self._means(), found, strict=True):
            means.take_in(sums)

    def _means(self) -> list[LoopMeans]:
        several = self.nats, self.abs_nats, self.value, self.drift, self.kept, self.log_kept, self.carried
        return [*self.seen.values(), *several]

    def feel(self, loss: str, k: int, gradient: State, told: Counted, z: State, counted: Counted) -> None:
        """Take in how much of a loss's gradient at loop k moves the coordinate, of the tokens it can be told of."""
        xi = self.coordinate.tangent(z)
        self.seen[loss].add(k, alignment(gradient, xi), counted & told)
        if loss == self.losses.exits.name:
            nats = (gradient * xi).sum(-1)
            self.nats.add(k, nats, counted)
            self.abs_nats.add(k, nats.abs(), counted)

    def move(self, k: int, z: State, carried: State, after: State, counted: Counted) -> None:
        """Take in what the carry and the whole loop leave of a move at loop k, all tokens together along the field.

        `carried` and `after` are functions of `z` with their graphs. The mean over tokens of a Jacobian-vector product
        is taken from its other side, as a vector-Jacobian product: exact too, and one pass serves every coordinate.
        """
        coordinate, value = self.coordinate, self.coordinate.value
        xi = coordinate.tangent(z.detach())
        start, moved = push(value, z.detach(), xi)
        moves = comparable(moved, counted)  # a state of length zero cannot be made longer
        share = torch.where(moves, 1 / moved, 0.0)

        def left(state: State, weights: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(
                (value(state) * weights).sum(), z, retain_graph=True, materialize_grads=True
            )
            return (pulled * xi).sum(-1)

        with torch.enable_grad():
            self.kept.add_parts(k, left(after, share), moves)
            self.carried.add_parts(k, left(carried, share), moves)
            end = value(after.detach())
            if coordinate.positive:
                both = moves & comparable(start, counted) & comparable(end, counted)
                growth = torch.where(both, end / start, 1.0)
                self.log_kept.add_parts(k, left(after, torch.where(both, share / growth, 0.0)), both)
        if coordinate.positive:
            self.drift.add(k, growth.log(), both)
        else:
            self.drift.add(k, end - start, counted)

    def report(self, thresholds: Thresholds) -> CoordinateReport:
        """Return the figures and the verdict they lead to."""
        self._require_moves()
        figures = {loss: means.means() for loss, means in self.seen.items()}
        seen = {loss: means.without_extremes() for loss, means in self.seen.items()}
        kept, carried = self.kept.means(), self.carried.means()
        trained = slice(0, max(self.losses.num_loops - 1, 1))
        retained = retention_per_loop(kept[trained])
        verdict = self._judge(
            seen, self.kept.without_extremes()[trained], self.carried.without_extremes()[trained], thresholds
        )
        with_all = self._judge(figures, kept[trained], carried[trained], thresholds)
        return CoordinateReport(
            verdict=verdict.verdict,
            seen_by=verdict.seen_by,
            removed_by=verdict.removed_by,
            remedy=verdict.remedy,
            visibility=figures[self.losses.exits.name],
            nats_per_unit=self.nats.means(),
            abs_nats_per_unit=self.abs_nats.means(),
            retention=kept,
            carry_retention=carried,
            retained=retained,
            value=self.value.means(),
            drift=self.drift.means(),
            unit=self.coordinate.unit,
            log_retention=self.log_kept.means() if self.coordinate.positive else None,
            seen={loss.name: figures[loss.name] for loss in self.losses if loss is not self.losses.exits},
            left_out=self._left_out(),
            one_token_decides=verdict.verdict != with_all.verdict,
        )

    def _judge(self, seen: Mapping[str, ByLoop], kept: ByLoop, carried: ByLoop, thresholds: Thresholds) -> Verdict:
        """Return the verdict that these figures lead to."""
        seen_by = {
            loss.name: [k + 1 for k, x in enumerate(seen[loss.name]) if x >= thresholds.visible and loss.looks(k)]
            for loss in self.losses
        }
        removed_by = None
        if retention_per_loop(kept) <= thresholds.retained:
            removed_by = "carry" if retention_per_loop(carried) <= thresholds.retained else "step"
        return judge(seen_by, removed_by, self.coordinate.remedy_for(self.configured, self.losses.num_loops))

    def _require_moves(self) -> None:
        for k, moves in enumerate(self.kept.counts()):
            if not moves:
                raise InputError(
                    f"coordinate '{self.coordinate.name}' does not move along its tangent at any token after loop "
                    f"{k + 1}: its value and tangent do not belong together, or the states there are zero."
                )

    def _left_out(self) -> dict[str, tuple[int, ...]]:
        """Return by figure how many tokens of every loop are not in it, where there are any."""
        counted = self.value.counts()
        figures = {**self.seen, "retention": self.kept, "drift": self.drift}
        missing = {
            name: tuple(all_ - some for all_, some in zip(counted, means.counts(), strict=False))
            for name, means in figures.items()
        }
        return {name: counts for name, counts in missing.items() if any(counts)}
