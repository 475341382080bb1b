"""`audit`: which variables of a looped model's state does its loss control?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loopscale.audit.checks import (
    check_coordinates,
    checked,
    few_tokens,
    first_state,
    runs_past_trained_depth,
)
from loopscale.audit.coordinates import Coordinate, mean, scale, unembedding_null
from loopscale.audit.losses import told_losses
from loopscale.audit.measure import Pass
from loopscale.audit.report import AuditReport, CoordinateReport
from loopscale.audit.verdict import Thresholds
from loopscale.batches import Batches
from loopscale.errors import InputError
from loopscale.facts import Facts, facts_of
from loopscale.stepping import Call, Looped, evaluating

ENDS = "the model cannot run past its trained depth: nothing is measured there"
NO_NULL = "unembedding_null is left out: the head is more than one matrix, or the model does not say which"

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
    and, where the LM head is one matrix, the directions that it hardly maps. What the training loss saw is what the
    model says in its `facts()`; for another model say it here (default: `per_loop` without a penalty). The model is put
    in eval mode meanwhile.

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
            loss.require(facts_of(call), model, z)
        goes_on = runs_past_trained_depth(model, first.inputs, losses.num_loops)
        if losses.num_loops == 1 and not goes_on:
            raise InputError("the model has one loop and cannot run another: nothing is carried on.")
        steps = losses.num_loops if goes_on else losses.num_loops - 1
        run = Pass(model, coordinates, losses, steps)
        run.run(windows)
    reports = {meter.coordinate.name: meter.report(thresholds) for meter in run.coordinates}
    return AuditReport(
        num_loops=losses.num_loops,
        supervision=losses.supervision,
        supervised_loops=tuple(k + 1 for k in range(losses.num_loops) if losses.exits.looks(k)),
        tokens=run.cross_entropy.tokens,
        hidden_size=run.hidden_size,
        thresholds=thresholds,
        cross_entropy=run.cross_entropy.means(),
        scale=run.scale.stats(),
        coordinates=reports,
        notes=(*(() if goes_on else (ENDS,)), *headless, *_notes(reports)),
    )


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


def default_coordinates(facts: Facts) -> Sequence[Coordinate]:
    """Return scale and mean, and where the LM head is one matrix the directions that it maps to nearly nothing."""
    return [scale, mean] if facts.head is None else [scale, mean, unembedding_null(facts.head)]
