"""Figures: the list of all that a report shows.

A further figure is one more `Figure` in `FIGURES`; its `draw` returns None where the results lack its data.
"""

from functools import partial

from .audit_figures import angular_step, norm_spread
from .curves_by_depth import by_depth
from .depth_tables import NOISY
from .drawing import Figure
from .frontier_figures import READABLE, frontier

LINES = "Solid: loss at every loop; dashed: at the last loop only."

FIGURES: tuple[Figure, ...] = (
    Figure(
        name="norm-by-depth",
        title="The norm of the state, loop by loop",
        caption=f"Mean ‖H_k‖ over the validation tokens, run on to three times the trained depth. {LINES}",
        draw=partial(by_depth, curve=lambda run: run.norm_by_depth, label=r"mean $\|H_k\|_2$", log_from=1.0),
        section="norms",
    ),
    Figure(
        name="norm-spread",
        title="The norm of single tokens at the trained depth",
        caption="Median, 99th percentile and largest norm over the tokens of the audit.",
        draw=norm_spread,
        section="norms",
    ),
    Figure(
        name="angular-step",
        title="The more a state has grown, the less it turns",
        caption="Angular step to the next loop against the scale, loop by loop over 30 loops. The dashed grey line is "
        f"lemma 2's prediction: one over the scale. {LINES}",
        draw=angular_step,
        section="audit",
    ),
    Figure(
        name="perplexity-by-depth",
        title="Perplexity at every exit",
        caption="Perplexity of the validation split, decoded after loop k, past the trained depth as well. " + LINES,
        draw=partial(by_depth, curve=lambda run: run.perplexity_by_depth, label="perplexity", log_from=5.0),
        section="depth",
    ),
    Figure(
        name="frontier",
        title="What perplexity costs",
        caption="Every exit, numbered, against counted operations and measured throughput; cost grows to the right. "
        f"Hollow: another exit is as good at no higher cost. Exits above {READABLE:g} times the lowest perplexity are "
        f"left out. {NOISY} {LINES}",
        draw=frontier,
        section="depth",
    ),
)
