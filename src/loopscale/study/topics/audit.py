"""Audit: what the losses see of the state's scale, and the verdicts on it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, final

from loopscale.audit import (
    AuditReport,
    CoordinateReport,
    Interventions,
    LoopCurves,
    ScaleStats,
    audit,
    intervene,
    loop_curves,
)
from loopscale.batches import Batch
from loopscale.data import Data
from loopscale.display import Axis, Chart, Column, Panel, Rule, Series, Style, Table, Zone
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Looped
from loopscale.storage import from_json, plain
from loopscale.system.precision import perplexity

from ..best_rates import sentence_by_name
from ..cells import agreed, by_condition, columns_of_conditions, over_seeds, seeds_said
from ..grid import condition_styles
from ..results import Results, Run
from ..topic import Claim, Drawing, Topic, at_least, at_most, finite, per_seed, valid_batches
from .exits import PLAIN

BATCHES = 2
BATCH_SIZE = 8
CURVE_LOOPS = 30
FLOOR = 1e-10  # zeros are drawn here

BLIND = {"terminal-rmsnorm": "blind_spot", PLAIN: "blind_spot"}
REMEDIED = {
    "per_loop-raw": "visible",
    "terminal-rmsnorm-penalty": "visible",
    "per_loop-rmsnorm-penalty": "visible",
    "per_loop-rmsnorm-normed": "removed",
}
STATED = "stated in the paper"


@final
@dataclass(frozen=True)
class Slope:
    """Log-log slope of the angular step against the scale over so many loops, None where neither varies."""

    loops: int
    slope: float | None
    r_squared: float | None


@final
@dataclass(frozen=True)
class Cost:
    """Perplexity of every exit under an intervention, and what it adds to the untouched one."""

    perplexity: tuple[float, ...]
    cost: tuple[float, ...]


@final
@dataclass(frozen=True)
class AuditRecord:
    """The audit of one trained model; lists have one entry per loop.

    radial_gradient: mean magnitude of cross-entropy's immediate gradient along the state, in nats per e-fold of scale,
    and its share of the whole gradient; retention, log_retention: of scale; norms: their distribution over tokens;
    audit, curves and interventions: the whole reports.
    """

    tokens: int
    verdicts: Mapping[str, str]
    radial_gradient: tuple[float, ...]
    radial_gradient_share: tuple[float, ...]
    retention: tuple[float, ...]
    log_retention: tuple[float, ...] | None
    lemma2: Slope
    remove_radial: Cost
    freeze_first: Cost
    norms: tuple[ScaleStats, ...]
    curves: LoopCurves
    interventions: Interventions
    audit: AuditReport


def measure_audit(model: LoopedForCausalLM, data: Data) -> AuditRecord:
    """Return the audit of a trained model on a few windows of the valid split."""
    return record_of(model, list(valid_batches(model, data, BATCH_SIZE, BATCHES)))


def record_of(model: Looped | Any, windows: Sequence[Batch], curve_loops: int = CURVE_LOOPS) -> AuditRecord:
    """Return verdicts, curves over so many loops, and interventions of any looped model."""
    report, curves = audit(model, windows), loop_curves(model, windows, curve_loops)
    changed = intervene(model, windows)
    scale, fit = report.coordinates["scale"], curves.fit
    record = AuditRecord(
        tokens=report.tokens,
        verdicts={name: coordinate.verdict for name, coordinate in report.coordinates.items()},
        radial_gradient=scale.abs_nats_per_unit,
        radial_gradient_share=scale.visibility,
        retention=scale.retention,
        log_retention=scale.log_retention,
        lemma2=Slope(len(curves.scale), fit.slope if fit else None, fit.r_squared if fit else None),
        remove_radial=_cost(changed, "remove_radial"),
        freeze_first=_cost(changed, "freeze_first"),
        norms=report.scale,
        curves=curves,
        interventions=changed,
        audit=report,
    )
    return from_json({**plain(record), "audit": report.to_dict()}, AuditRecord, "the audit")


def _cost(changed: Interventions, name: str) -> Cost:
    untouched, found = (tuple(map(perplexity, changed.cross_entropy[which])) for which in ("none", name))
    return Cost(found, tuple(a - b for a, b in zip(found, untouched, strict=True)))


def radial_gradient_ratio(run: Run, other: Run) -> float | None:
    """Return the cross-entropy's mean |nats per e-fold of scale| over loops, over that of `other`."""
    ours, theirs = TOPIC.of(run), TOPIC.of(other)
    if ours is None or theirs is None or not fmean(theirs.radial_gradient):
        return None
    return fmean(ours.radial_gradient) / fmean(theirs.radial_gradient)


def verdicts_met(expected: Mapping[str, str]) -> Callable[..., float | None]:
    """Return the formula that counts the runs, in that order, whose verdict on scale is the expected one."""

    def formula(*runs: Run) -> float | None:
        verdicts = [scale_verdict(run) for run in runs]
        if None in verdicts:
            return None
        return float(sum(a == b for a, b in zip(verdicts, expected.values(), strict=True)))

    return formula


def scale_verdict(run: Run) -> str | None:
    """Return the verdict on scale, None without an audit."""
    record = TOPIC.of(run)
    return record.verdicts["scale"] if record else None


def verdicts(results: Results) -> Table | None:
    """What the losses see of scale, what the loop keeps, and the verdicts; one row per condition."""

    def of_scale(figure: Callable[[CoordinateReport], float]) -> Callable[[Run], float | None]:
        return lambda run: finite(figure(record.audit.coordinates["scale"])) if (record := TOPIC.of(run)) else None

    def cells(runs: Sequence[Run]) -> list[str]:
        return [
            over_seeds(runs, of_scale(lambda scale: scale.visibility[0])),
            over_seeds(runs, of_scale(lambda scale: scale.visibility[results.num_loops - 1])),
            over_seeds(runs, of_scale(lambda scale: scale.retention[-1])),
            over_seeds(runs, of_scale(lambda scale: fmean(scale.drift))),
            agreed([_with_losses(run) for run in runs]),
            agreed([_words(record.verdicts["mean"] if (record := TOPIC.of(run)) else None) for run in runs]),
        ]

    if not any(map(TOPIC.of, results.all_runs)):
        return None
    return Table(
        name="audit",
        title="Audit: does a loss see the scale of the state, and does the loop keep it?",
        caption="Visibility: share of the gradient of that exit's cross-entropy that moves the scale. Retention: share "
        "of a small change of the last loop's scale left after one more loop. Drift: e-folds per loop, mean. Verdicts "
        "name the loss that sees, in brackets; mean: the state's component along the ones vector. "
        f"{seeds_said(results)}",
        columns=(
            *columns_of_conditions("visibility, exit 1", f"visibility, exit {results.num_loops}", "retention", "drift"),
            *map(Column, ("scale", "mean")),
        ),
        rows=by_condition(results, cells),
    )


def plane(results: Results) -> Chart | None:
    """Draw what the losses see of scale against what the loop keeps of it, a point per run."""
    styles, series, lines = condition_styles(results), [], None
    for name, condition in results.conditions.items():
        for run in condition.runs:
            record = TOPIC.of(run)
            if record is None or finite(record.retention[-1]) is None:
                continue
            scale, lines = record.audit.coordinates["scale"], record.audit.thresholds
            seen = [
                value
                for loss in (scale.visibility, *scale.seen.values())
                for value in loss
                if finite(value) is not None
            ]
            place = (max([FLOOR, *seen]),), (abs(record.retention[-1]),)
            note = f"seed {run.seed}: {_words(record.verdicts['scale'])}"
            series.append(Series(name, *place, styles[name], _mark(styles[name]), marks_only=True, notes=(note,)))
    if lines is None:
        return None
    x = Axis("visibility: the most that a loss sees, share of its gradient", log=True)
    y = Axis("retention: left after one more loop")
    blind = Zone((-math.inf, lines.visible), (lines.retained, math.inf), "blind spot")
    rules = Rule("x", lines.visible, "visible from here"), Rule("y", lines.retained, "removed below")
    return Chart((Panel(x, y, tuple(series), rules, (blind,)),))


def _mark(style: Style) -> str:
    """Return a filled mark for a loss at every loop, another for one at the last loop, which lines tell by dashes."""
    return "o" if style.dashes == "-" else "D"


@sentence_by_name
def verdicts_sentence(results: Results) -> str | None:
    """Return the verdicts on scale of all conditions in one line, None without an audit."""
    conditions: dict[str, list[str]] = {}
    for name, condition in results.conditions.items():
        if known := [verdict for run in condition.runs if (verdict := scale_verdict(run))]:
            conditions.setdefault(agreed([_words(verdict) for verdict in known]), []).append(name)
    parts = (f"{'a ' * (verdict == 'blind spot')}{verdict} in {', '.join(n)}" for verdict, n in conditions.items())
    return f"The audit: scale is {'; '.join(parts)}." if conditions else None


def _with_losses(run: Run) -> str:
    record = TOPIC.of(run)
    seen_by = record.audit.coordinates["scale"].seen_by if record else {}
    losses = f" ({', '.join(seen_by)})" if seen_by else ""
    return f"{_words(scale_verdict(run))}{losses}"


def _words(verdict: str | None) -> str:
    return "–" if verdict is None else verdict.replace("_", " ")


def _verdicts(id: str, statement: str, expected: Mapping[str, str], published: str) -> Claim:
    return Claim(
        id=id,
        statement=statement,
        measure=per_seed(verdicts_met(expected), *expected),
        threshold=at_least(float(len(expected))),
        published=published,
        unit=f" of {len(expected)}",
        remark=f"Counted: {', '.join(expected)}.",
    )


CLAIMS = (
    Claim(
        id="radial-gradient",
        statement="Through an RMSNorm readout cross-entropy has no immediate gradient along the state: next to that of "
        "raw readouts it is rounding error.",
        measure=per_seed(radial_gradient_ratio, PLAIN, "per_loop-raw"),
        threshold=at_most(1e-3),
        published="zero up to rounding (lemma 1)",
        remark="Its mean size over loops, in nats per e-fold of scale.",
    ),
    _verdicts(
        "scale-blind-spot",
        "Behind RMSNorm readouts scale is a blind spot: no loss sees it at any loop, and the recurrence keeps it.",
        BLIND,
        STATED,
    ),
    _verdicts(
        "scale-remedies",
        "Each remedy ends the blind spot: raw readouts and the penalty see scale, the inter-loop norm removes it.",
        REMEDIED,
        f"{STATED}; the inter-loop norm is ours",
    ),
)

TOPIC: Topic[AuditRecord] = Topic(
    name="audit",
    heading="Audit",
    place=30,
    record=AuditRecord,
    measure=measure_audit,
    claims=CLAIMS,
    tables=(verdicts,),
    figures=(
        Drawing(
            name="visibility-retention",
            title="What a loss sees of the scale, and what the loop keeps of it",
            caption="A mark per run: round where the loss is applied at every loop, a diamond where at the last alone. "
            "The most that any loss sees at any loop, a penalty included, against the retention of the last loop. "
            "Shaded: no loss sees the scale, and the loop carries it on.",
            draw=plane,
        ),
    ),
    sentence=verdicts_sentence,
)
