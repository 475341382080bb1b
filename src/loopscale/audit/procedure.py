"""Procedure of an audit: which variables of a looped model's state does its loss control? One pass over the batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from loopscale.audit.coordinates import Coordinate, mean, scale, unembedding_null, within
from loopscale.audit.findings import AuditReport, CoordinateReport
from loopscale.audit.measurement.checks import (
    Finite,
    check_coordinates,
    checked,
    few_tokens,
    first_state,
    require_told,
    runs_past_trained_depth,
)
from loopscale.audit.measurement.derivatives import telling
from loopscale.audit.measurement.meters import CoordinateMeter, ScaleMeter, ScaleSums
from loopscale.audit.measurement.streams import Counted, LoopMeans, Sums
from loopscale.audit.measurement.training_losses import told_losses
from loopscale.audit.verdict import Thresholds
from loopscale.batches import Batches, Window
from loopscale.call import Call
from loopscale.errors import InputError
from loopscale.facts import Facts, Reads, facts_of
from loopscale.objective import Losses
from loopscale.processes import each
from loopscale.stepping import Looped, State, evaluating

ENDS = "the model cannot run past its trained depth: nothing is measured there"
NO_NULL = "unembedding_null is left out: logits are more than one product of the state, or the model does not say which"

# here and in the other measurements: `| Any` where an argument of another kind is answered by an InputError of ours


def audit(
    model: Looped | Any,
    batches: Batches,
    *,
    coordinates: Sequence[Coordinate | Any] | None = None,
    supervision: str | None = None,
    loop_weights: Sequence[float] | None = None,
    norm_penalty_coef: float | None = None,
    thresholds: Thresholds | None = None,
) -> AuditReport:
    """Measure visibility, retention and drift of every coordinate, and judge it, in one pass over `batches`.

    `batches` yields LongTensors (batch, seq + 1), or pairs (input_ids, labels). `coordinates` default to scale, mean
    and, where the LM head is one matrix, the directions that it hardly maps; a state that has parts is audited whole
    and part by part (`scale[high]`). What the training loss saw is what the model says in its `facts()`; for another
    model say it here (default: `per_loop` without a penalty). The model is put in eval mode meanwhile.

    Definitions follow arXiv 2606.24898: visibility is lemma 1's, retention lemma 2's.

    Raises `InputError` where a verb does not keep its promise (`check_verbs`), a batch is not of that form or there is
    none, or a state is not finite.
    """
    thresholds = thresholds or Thresholds()
    facts = facts_of(model)
    losses = told_losses(facts, supervision, loop_weights, norm_penalty_coef)
    headless = (NO_NULL,) if coordinates is None and facts.head is None else ()
    coordinates = default_coordinates(facts) if coordinates is None else coordinates
    with evaluating(model):
        first, windows = checked(model, batches)
        call = Call(model, few_tokens(model, first.inputs))
        z = first_state(call)
        check_coordinates(coordinates, z)
        for loss in losses:
            loss.require(Reads(call), model, z)
        goes_on = runs_past_trained_depth(model, first.inputs, losses.num_loops)
        if losses.num_loops == 1 and not goes_on:
            raise InputError("the model has one loop and cannot run another: nothing is carried on.")
        steps = losses.num_loops if goes_on else losses.num_loops - 1
        configured = facts_of(model).configured
        run = _Session(model, [CoordinateMeter(c, losses, configured) for c in coordinates], losses, steps)
        run.run(windows)
    reports = {meter.coordinate.name: meter.report(thresholds) for meter in run.coordinates}
    return AuditReport(
        num_loops=losses.num_loops,
        supervision=losses.supervision,
        supervised_loops=tuple(k + 1 for k in range(losses.num_loops) if losses.exits.looks(k)),
        tokens=run.cross_entropy.tokens,
        hidden_size=z.shape[-1],
        thresholds=thresholds,
        cross_entropy=run.cross_entropy.means(),
        scale=run.scale.stats(),
        coordinates=reports,
        notes=(
            *(() if goes_on else (ENDS,)),
            *headless,
            *_unread_parts(facts, reports),
            *_of_the_step(losses),
            *_notes(reports),
        ),
    )


Measured = tuple[ScaleSums, Sums, list[list[Sums]]]  # of one batch: all that a session adds up


@final
class _Session:
    """All meters of one audit, or of one batch of it."""

    def __init__(self, model: Looped, coordinates: Sequence[CoordinateMeter], losses: Losses, steps: int) -> None:
        self.model, self.losses, self.steps = model, losses, steps
        self.scale, self.cross_entropy = ScaleMeter(), LoopMeans()
        self.coordinates = coordinates
        self.finite = Finite()  # of the batch

    def run(self, windows: Iterable[Window]) -> None:
        """Measure every batch, whichever process does, and add them up in their order."""
        for of_scale, cross_entropy, coordinates in each(windows, self._of_batch):
            self.scale.take_in(of_scale)
            self.cross_entropy.take_in(cross_entropy)
            for meter, found in zip(self.coordinates, coordinates, strict=True):
                meter.take_in(found)
        for k, told in enumerate(self.coordinates[0].seen[self.losses.exits.name].counts()):
            require_told(told, k)

    def _of_batch(self, window: Window) -> Measured:
        fresh = [meter.anew() for meter in self.coordinates]
        return _Session(self.model, fresh, self.losses, self.steps).measured(window)

    def measured(self, window: Window) -> Measured:
        """Measure a batch; only two states are alive at a time, and nothing is looked at before the last loop."""
        inputs, labels, counted, _ = window
        call = Call(self.model, inputs)
        reads, z = Reads(call), first_state(call)
        for k in range(self.losses.num_loops):
            self.finite.note_state(z, k)
            self._look(reads, k, z, labels, counted)
            if k < self.steps:
                z = self._advance(call, k, z, counted)
        self.finite.require()
        return self.scale.found(), self.cross_entropy.sums(), [meter.found() for meter in self.coordinates]

    def _look(self, reads: Reads, k: int, z: State, labels: Tensor, counted: Counted) -> None:
        """Measure what every loss sees of the state of loop k."""
        self.scale.add(k, z, counted)
        for meter in self.coordinates:
            meter.value.add(k, meter.coordinate.value(z), counted)
        for loss in self.losses:
            gradient, token_losses = loss.gradient(reads, z, k, labels)
            self.finite.note(gradient, loss.described(k), counted)
            if loss is self.losses.exits:
                assert token_losses is not None  # those of a cross-entropy come with it
                self.cross_entropy.add(k, token_losses, counted)
            told = telling(gradient, token_losses)
            for meter in self.coordinates:
                meter.feel(loss.name, k, gradient, told, z, counted)

    def _advance(self, call: Call, k: int, z: State, counted: Counted) -> State:
        """Measure what one more loop keeps of every coordinate, and return the next state."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            carried = call.carry(z, k)
            after = call.step(carried, k + 1)
        for meter in self.coordinates:
            meter.move(k, z, carried, after, counted)
        return after.detach()


def _of_the_step(losses: Losses) -> Iterator[str]:
    """Yield which losses are of the step alone, and have no say in a verdict."""
    for loss in losses.others:
        if not loss.reaches_states:
            yield f"the {loss.name} is of the step alone: it takes the state for a constant, and has no say here"


def _notes(reports: Mapping[str, CoordinateReport]) -> Iterator[str]:
    """Yield what a reader must know of the tokens: which were left out, and where one alone would have decided."""
    left_out: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, report in reports.items():
        for figure, tokens in report.left_out.items():
            left_out.setdefault((figure, tokens), []).append(name)
        if report.one_token_decides:
            yield f"{name}: one token alone would change the verdict, which is that of all the others"
    for (figure, tokens), names in left_out.items():
        which = f"the {figure} of {', '.join(names)}" if figure in ("retention", "drift") else f"what the {figure} sees"
        counts = ", ".join(f"{count} at loop {k}" for k, count in enumerate(tokens, 1) if count)
        yield f"left out of {which}, as nothing but rounding or too small to divide by: tokens, {counts}"


def _unread_parts(facts: Facts, reports: Mapping[str, CoordinateReport]) -> Iterator[str]:
    """Yield a note for every part of the state that no loss reads at all, whatever is moved in it."""
    for part in facts.parts:
        own = [report for name, report in reports.items() if name.endswith(f"[{part}]")]
        if own and not any(any(figures) for report in own for figures in (report.visibility, *report.seen.values())):
            yield f"no exit reads the part '{part}': what it holds is felt in the next loop alone"


def default_coordinates(facts: Facts) -> Sequence[Coordinate]:
    """Return scale and mean, both of every part of a state that has parts, and the head's null space if it is known.

    That is what the LM head maps to nearly nothing, where it is one matrix.
    """
    parts = [within(c, name, channels) for name, channels in facts.parts.items() for c in (scale, mean)]
    return [scale, mean, *parts, *(() if facts.head is None else [unembedding_null(facts.head)])]
