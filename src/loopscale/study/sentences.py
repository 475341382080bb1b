"""The result in three sentences, worked out from the data: the exits, the norm, what control of the scale is worth."""

from collections.abc import Callable
from statistics import fmean

from .claim import ratio_of_perplexities
from .claims import final_norm, first_exit_ratio
from .depth_claims import CONTROLLED, PLAIN
from .extras import found
from .results import Results, Run
from .summary import number

TERMINAL = "terminal-rmsnorm"
SAME = 0.01  # perplexities within 1% are called equal


def three_sentences(results: Results) -> list[str]:
    """Return a sentence per part of the result, without those that the study lacks the runs for."""
    return [sentence for part in (_exits, _norms, _quality) if (sentence := part(results))]


def _exits(results: Results) -> str | None:
    parts = [
        f"exit 1 of {name} has {number(ratio)} times the perplexity of its last exit"
        for name in (PLAIN, TERMINAL)
        if (ratio := _mean(results, name, first_exit_ratio)) is not None
    ]
    return _sentence("The exits", "; ".join(parts)) if parts else None


def _norms(results: Results) -> str | None:
    plain = _mean(results, PLAIN, final_norm)
    others = [
        f"{number(norm)} in {name}"
        for name in ("per_loop-raw", "per_loop-rmsnorm-penalty", "per_loop-rmsnorm-normed")
        if (norm := _mean(results, name, final_norm)) is not None
    ]
    if plain is None:
        return None
    blind = {found(run, "audit", "verdicts", "scale") for run in results.runs(PLAIN)} == {"blind_spot"}
    said = f"the state of {PLAIN} ends at a mean norm of {number(plain)}"
    said += f", against {', '.join(others)}" if others else ""
    return _sentence("The scale", f"{said}{'; the audit finds its scale a blind spot' if blind else ''}")


def _quality(results: Results) -> str | None:
    plain = _mean(results, PLAIN, _final_nats)
    ratios = {
        name: ratio_of_perplexities(nats - plain)
        for name in CONTROLLED
        if plain is not None and (nats := _mean(results, name, _final_nats)) is not None
    }
    if not ratios:
        return None
    words = [f"{number(ratio)} in {name}" for name, ratio in ratios.items()]
    better, worse = (sum(map(test, ratios.values())) for test in (lambda r: r < 1 - SAME, lambda r: r > 1 + SAME))
    verdict = f"{better} better, {worse} worse, {len(ratios) - better - worse} within 1%"
    return _sentence("The worth", f"last-exit perplexity relative to {PLAIN} is {', '.join(words)}: {verdict}")


def _final_nats(run: Run) -> float:
    return run.cross_entropy[-1]


def _mean(results: Results, condition: str, figure: Callable[[Run], float]) -> float | None:
    runs = results.runs(condition)
    return fmean(map(figure, runs)) if runs and not any(run.diverged for run in runs) else None


def _sentence(topic: str, text: str) -> str:
    return f"{topic}: {text}."
