"""Everything a study records of one trained model, as one dict."""

from collections.abc import Sequence
from typing import Any

from loopscale.audit.audit import audit
from loopscale.audit.curves import LoopCurves, loop_curves
from loopscale.audit.interventions import Interventions, intervene
from loopscale.batches import Batches
from loopscale.precision import perplexity
from loopscale.stepping import Looped
from loopscale.storage import plain


def run_audit(model: Looped | Any, batches: Batches, curve_loops: int = 30) -> dict[str, Any]:
    """Audit a model over a few batches, run its curves and interventions, and return what JSON can hold.

    Keys (lists have one entry per loop): `verdicts` by coordinate; `radial_gradient`, the mean magnitude of the
    cross-entropy's immediate gradient along the state, in nats per e-fold of scale, and `radial_gradient_share` of the
    whole gradient; `retention` and `log_retention` of scale; `lemma2` with slope and R^2 of the angular step against
    the scale over `curve_loops` loops; `remove_radial` and `freeze_first` with perplexity and its cost over the
    untouched one; `norms`, the distribution over tokens; `audit`, `curves` and `interventions` whole.
    """
    held = list(batches)
    report = audit(model, held)
    curves = loop_curves(model, held, curve_loops)
    changed = intervene(model, held)
    scale = report.coordinates["scale"]
    summary = {
        "tokens": report.tokens,
        "verdicts": {name: coordinate.verdict for name, coordinate in report.coordinates.items()},
        "radial_gradient": scale.abs_nats_per_unit,
        "radial_gradient_share": scale.visibility,
        "retention": scale.retention,
        "log_retention": scale.log_retention,
        "lemma2": _lemma2(curves),
        "remove_radial": _perplexity_cost(changed, "remove_radial"),
        "freeze_first": _perplexity_cost(changed, "freeze_first"),
        "norms": [plain(stats) for stats in report.scale],
        "curves": plain(curves),
        "interventions": plain(changed),
    }
    return {**plain(summary), "audit": report.to_dict()}


def _lemma2(curves: LoopCurves) -> dict[str, Any]:
    fit = curves.fit
    return {
        "loops": len(curves.scale),
        "slope": None if fit is None else fit.slope,
        "r_squared": None if fit is None else fit.r_squared,
    }


def _perplexity_cost(changed: Interventions, name: str) -> dict[str, Sequence[float]]:
    untouched = [perplexity(x) for x in changed.cross_entropy["none"]]
    found = [perplexity(x) for x in changed.cross_entropy[name]]
    return {"perplexity": found, "cost": [a - b for a, b in zip(found, untouched, strict=True)]}
