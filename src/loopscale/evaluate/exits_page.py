"""Page of an evaluation: which exit of each model to run, in words, then its curves, costs and halting rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loopscale.display import number, percent
from loopscale.display.page import Headline, PageFigure, PagePart, plain_page
from loopscale.evaluate.curve import SAFE_RELATIVE_PERPLEXITY
from loopscale.evaluate.display import depth_chart, frontier_chart
from loopscale.evaluate.pareto import FrontierPoint, Measured


def exits_page(
    measured: Mapping[str, Measured],
    points: Sequence[FrontierPoint],
    parts: Sequence[PagePart],
    environment: Mapping[str, Any],
    texts: Mapping[str, Mapping[str, Any]],
    comparable: bool = True,
) -> str:
    """Return the page as HTML: the curves and the frontier of all models, then the parts.

    `texts` say by model what it was measured on; `comparable`: on the same.
    """
    curves = PageFigure(
        "depth",
        "Every exit, past the trained depth too",
        "Perplexity, with two standard errors over windows as a band, and the mean norm of the state.",
        depth_chart({name: one.curve for name, one in measured.items()}),
    )
    costs = PageFigure(
        "frontier",
        "What perplexity costs",
        "Every exit, numbered, against counted operations and measured speed; cost grows to the right. Hollow: another "
        "exit is as good at no higher cost.",
        frontier_chart(points),
    )
    drawn = [PagePart("Exits", (curves,)), PagePart("Frontier", (costs,))]
    said = {f"measured on: {name}": facts for name, facts in texts.items()}
    return plain_page(headline(measured, comparable), [*drawn, *parts], {**said, "the environment": environment})


def headline(measured: Mapping[str, Measured], comparable: bool = True) -> Headline:
    """Return which model is best and which exit of each is the first that is as good as its best one."""
    known = {name: best for name, one in measured.items() if math.isfinite(best := _best(one))}
    points = tuple((name, _exit(one)) for name, one in measured.items())
    if not known:
        answer = "No exit of any model has a finite perplexity."
    elif len(measured) == 1 or not comparable:
        answer = "; ".join(f"run {name} to exit {first_good(measured[name])}" for name in known)
        answer = f"{answer[0].upper()}{answer[1:]}."
    else:
        # by byte, where the tokens of different tokenizers are of different lengths
        name = min(known, key=lambda name: math.log(known[name]) / (measured[name].curve.bytes_per_token or 1.0))
        exit_ = first_good(measured[name])
        answer = (
            f"{name} is best: a perplexity of {number(measured[name].curve[exit_ - 1].perplexity)} at exit {exit_}."
        )
    note = "" if comparable else "The models were measured on different texts or windows: their figures do not compare."
    return Headline("loopscale evaluate", answer, points, (note,) if note else ())


def first_good(one: Measured) -> int:
    """Return the first exit whose perplexity is within 1% of the best one's."""
    bound = SAFE_RELATIVE_PERPLEXITY * _best(one)
    return next((point.exit for point in one.curve if point.perplexity <= bound), one.curve.trained_loops)


def _best(one: Measured) -> float:
    """Return the lowest finite perplexity, infinite where there is none."""
    return min((p.perplexity for p in one.curve if math.isfinite(p.perplexity)), default=math.inf)


def _exit(one: Measured) -> str:
    if not math.isfinite(_best(one)):
        return "no exit has a finite perplexity."
    first, trained = first_good(one), one.curve.trained_loops
    perplexity = one.curve[first - 1].perplexity
    where = f"of {trained} trained ones" if first <= trained else f"past the {trained} trained ones"
    said = f"exit {first} {where} is the first within 1% of its best: {number(perplexity)}"
    share = one.flops.at_exit(first) / one.flops.at_exit(trained)
    return f"{said}, for {percent(share)} of the operations of the trained depth." if first != trained else f"{said}."
