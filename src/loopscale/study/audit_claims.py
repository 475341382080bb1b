"""Claims that the audit of every trained run decides: what the loss feels of scale, and what the loop keeps of it."""

from collections.abc import Callable, Mapping
from statistics import fmean

from .claim import Claim, above, at_least, at_most, per_seed, ratio_of_perplexities, within
from .extras import found, number_at, numbers_at
from .results import Run

BLIND = {"terminal-rmsnorm": "blind_spot", "per_loop-rmsnorm": "blind_spot"}
REMEDIED = {
    "per_loop-raw": "visible",
    "terminal-rmsnorm-penalty": "visible",
    "per_loop-rmsnorm-penalty": "visible",
    "per_loop-rmsnorm-normed": "removed",
}
STATED = "stated in the paper"


def radial_gradient_ratio(run: Run, other: Run) -> float | None:
    """Return the cross-entropy's mean |nats per e-fold of scale| over loops, over that of `other`."""
    ours, theirs = (numbers_at(r, "audit", "radial_gradient") for r in (run, other))
    return fmean(ours) / fmean(theirs) if ours and theirs and fmean(theirs) else None


def verdicts_met(expected: Mapping[str, str]) -> Callable[..., float | None]:
    """Return the formula that counts the runs, in that order, whose verdict on scale is the expected one."""

    def formula(*runs: Run) -> float | None:
        verdicts = [found(run, "audit", "verdicts", "scale") for run in runs]
        if None in verdicts:
            return None
        return float(sum(a == b for a, b in zip(verdicts, expected.values(), strict=True)))

    return formula


def last_retention(run: Run) -> float | None:
    """Return the share of a small change of the last loop's scale that one more loop leaves, ds_{K+1} / ds_K."""
    return number_at(run, "audit", "retention", -1)


def angular_slope(run: Run) -> float | None:
    """Return the log-log slope of the angular step against the scale, over 30 loops."""
    return number_at(run, "audit", "lemma2", "slope")


def remove_radial_ratio(run: Run) -> float | None:
    """Return the last exit's perplexity with radial growth removed over the untouched one."""
    changed, untouched = (
        number_at(run, "audit", "interventions", "cross_entropy", name, -1) for name in ("remove_radial", "none")
    )
    return None if changed is None or untouched is None else ratio_of_perplexities(changed - untouched)


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


AUDIT_CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="radial-gradient",
        statement="Through an RMSNorm readout cross-entropy has no immediate gradient along the state: next to that of "
        "raw readouts it is rounding error.",
        measure=per_seed(radial_gradient_ratio, "per_loop-rmsnorm", "per_loop-raw"),
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
    Claim(
        id="residual-retains-scale",
        statement="A residual recurrence carries scale on: of a small change, at least nine tenths are left after one "
        "more loop.",
        measure=per_seed(last_retention, "per_loop-rmsnorm"),
        threshold=at_least(0.9),
        published="near 1 at large scale (lemma 2)",
        unit="",
    ),
    Claim(
        id="inter-loop-norm-forgets-scale",
        statement="An inter-loop norm does not: of a small change of scale, at most one tenth is left after one more "
        "loop.",
        measure=per_seed(last_retention, "per_loop-rmsnorm-normed"),
        threshold=at_most(0.1),
        published=None,
        unit="",
    ),
    Claim(
        id="angular-step-slope",
        statement="The more the state grows the less it turns: over 30 loops the angular step falls as one over the "
        "scale.",
        measure=per_seed(angular_slope, "per_loop-rmsnorm"),
        threshold=within(0.2, -1.0),
        published="-1 (lemma 2's prediction)",
        unit="",
        remark="Slope of a log-log fit. The prediction takes updates whose part across the state keeps its size; where "
        "that part shrinks as well, the slope is steeper.",
    ),
    Claim(
        id="radial-growth-used",
        statement="The trained model relies on growing: with radial growth removed at inference, the last exit's "
        "perplexity rises.",
        measure=per_seed(remove_radial_ratio, "per_loop-rmsnorm"),
        threshold=above(1.0),
        published=None,
    ),
)
