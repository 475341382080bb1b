"""What a model card tells of a trained model: the perplexity of its exits, and the verdicts on its state.

Where nothing was measured the verdicts are those of its configuration, and the card says so.
"""

from collections.abc import Mapping
from dataclasses import replace

from loopscale.audit.procedure import audit
from loopscale.audit.static import static_verdict
from loopscale.audit.verdict import Verdict
from loopscale.batches import Batches
from loopscale.evaluate import depth_curve
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model_card import Known


def stated(config: LoopedConfig, known: Known) -> Known:
    """Return what is known, and the verdicts that follow from a configuration."""
    return replace(known, verdicts=in_words(static_verdict(config)), audited=False)


def measured(model: LoopedForCausalLM, batches: Batches, known: Known) -> Known:
    """Return what is known, and what held-out text tells: of exits all batches, of the state the first."""
    windows = list(batches)
    curve, report = depth_curve(model, windows, model.trained_loops), audit(model, windows[:1])
    found = {name: Verdict(c.verdict, c.seen_by, c.removed_by) for name, c in report.coordinates.items()}
    return replace(
        known,
        perplexity=tuple(point.perplexity for point in curve),
        measured_on=f"{int(curve.tokens.sum()):,} tokens of its valid split",
        verdicts=in_words(found),
        audited=True,
    )


def in_words(verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """Return each verdict with what it rests on."""
    return {name: _words(verdict) for name, verdict in verdicts.items()}


def _words(verdict: Verdict) -> str:
    if verdict.verdict == "visible":
        losses = "; ".join(f"{loss} at exits {', '.join(map(str, at))}" for loss, at in verdict.seen_by.items())
        return f"visible to {losses}"
    if verdict.verdict == "removed":
        return f"removed by {verdict.removed_by}"
    if verdict.verdict == "blind_spot":
        return "**blind spot**: carried on, and seen by no loss"
    return "undecided before it is measured"
