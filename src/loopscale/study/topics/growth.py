"""Growth: the loop keeps the scale of a state, a state that grows turns less, and the model relies on growing."""

from collections.abc import Sequence

import numpy as np

from loopscale.audit.display import ANGULAR_AXES
from loopscale.display import DASHED, GREY, Axis, Chart, Panel, Series, Style

from ..drawing import LINES
from ..grid import condition_styles
from ..results import Results, Run
from ..topic import Claim, Drawing, Topic, above, at_least, at_most, finite, per_seed, ratio_of_perplexities, within
from .audit import TOPIC as AUDIT
from .exits import PLAIN


def last_retention(run: Run) -> float | None:
    """Return the share of a small change of the last loop's scale that one more loop leaves, ds_{K+1} / ds_K."""
    record = AUDIT.of(run)
    return record.retention[-1] if record else None


def angular_slope(run: Run) -> float | None:
    """Return the log-log slope of the angular step against the scale, over 30 loops."""
    record = AUDIT.of(run)
    return record.lemma2.slope if record else None


def remove_radial_ratio(run: Run) -> float | None:
    """Return the last exit's perplexity with radial growth removed over the untouched one."""
    record = AUDIT.of(run)
    if record is None:
        return None
    changed, untouched = (finite(record.interventions.cross_entropy[name][-1]) for name in ("remove_radial", "none"))
    return None if changed is None or untouched is None else ratio_of_perplexities(changed - untouched)


def angular_step(results: Results) -> Chart | None:
    """Draw the angular step against the scale, 30 loops of every condition, means over seeds."""
    known = {name: curve for name in results.conditions if (curve := _means(results.runs(name)))[1]}
    if not known:
        return None
    styles = condition_styles(results)
    series = [
        Series(name, tuple(scale), tuple(step), styles[name], marker="o", notes=_loops(step))
        for name, (scale, step) in known.items()
    ]
    scale, step = known[PLAIN] if PLAIN in known else next(iter(known.values()))  # the guide starts at its first loop
    ends = (min(scale), max(scale))
    guide = tuple(scale[0] * step[0] / end for end in ends)
    series.append(Series("1 / scale", ends, guide, Style(GREY, DASHED)))
    x, y = (Axis(label, log=True) for label in ANGULAR_AXES)
    return Chart((Panel(x, y, tuple(series)),))


def _loops(steps: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"from loop {k} to {k + 1}" for k in range(1, len(steps) + 1))


def _means(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Return scale and angular step per loop, means over seeds, as far as all seeds have them and they are finite."""
    records = [AUDIT.of(run) for run in runs]
    curves = [np.array(list(zip(r.curves.scale, r.curves.angular_step, strict=False))) for r in records if r]
    loops = min(map(len, curves), default=0) if len(curves) == len(runs) else 0
    if not loops:
        return [], []
    means = np.mean([curve[:loops] for curve in curves], axis=0)
    scale, step = means[: np.isfinite(means).all(axis=1).cumprod().sum()].T.tolist()
    return scale, step


CLAIMS = (
    Claim(
        id="residual-retains-scale",
        statement="A residual recurrence carries scale on: of a small change, at least nine tenths are left after one "
        "more loop.",
        measure=per_seed(last_retention, PLAIN),
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
        measure=per_seed(angular_slope, PLAIN),
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
        measure=per_seed(remove_radial_ratio, PLAIN),
        threshold=above(1.0),
        published=None,
    ),
)

TOPIC: Topic[None] = Topic(
    name="growth",
    heading="Audit",
    place=31,
    claims=CLAIMS,
    figures=(
        Drawing(
            name="angular-step",
            title="The more a state has grown, the less it turns",
            caption="Angular step to the next loop against the scale, loop by loop over 30 loops. The dashed grey line "
            f"is lemma 2's prediction: one over the scale. {LINES}",
            draw=angular_step,
        ),
    ),
)
