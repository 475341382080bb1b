"""Made-up studies: round, artificial numbers, so that no test mistakes them for measurements."""

import math
from dataclasses import replace

import pytest

from loopscale.study.results import ConditionResult, Results, Run

LOOPS = 4
# supervision, readout, recurrence, penalty, losses at the four exits, norm of loop 1, its growth per loop
GRID = {
    "terminal-rmsnorm": ("terminal", "rmsnorm", "residual", 0.0, (9.0, 7.0, 4.0, 2.0), 100.0, 90.0),
    "terminal-raw": ("terminal", "raw", "residual", 0.0, (8.0, 6.0, 3.5, 2.1), 5.0, 2.0),
    "per_loop-rmsnorm": ("per_loop", "rmsnorm", "residual", 0.0, (2.1, 2.0, 2.0, 2.0), 200.0, 200.0),
    "per_loop-raw": ("per_loop", "raw", "residual", 0.0, (2.3, 2.2, 2.1, 2.1), 8.0, 0.5),
    "per_loop-final_rmsnorm": ("per_loop", "final_rmsnorm", "residual", 0.0, (2.3, 2.1, 2.0, 1.9), 9.0, 4.0),
    "terminal-rmsnorm-penalty": ("terminal", "rmsnorm", "residual", 0.01, (9.5, 7.5, 4.5, 2.0), 12.0, 1.0),
    "per_loop-rmsnorm-penalty": ("per_loop", "rmsnorm", "residual", 0.01, (2.2, 2.1, 2.0, 2.1), 15.0, 1.5),
    "per_loop-rmsnorm-normed": ("per_loop", "rmsnorm", "rmsnorm", 0.0, (2.2, 2.0, 2.0, 2.0), 22.0, 0.0),
}


def made_up_run(condition, seed):
    *_, losses, first, growth = GRID[condition]
    nudge = 0.1 * (seed - 1)
    losses = tuple(loss + nudge / 10 for loss in losses)
    norms = tuple((first + growth * k) * (1 + nudge) for k in range(3 * LOOPS))
    drift = tuple(losses[-1] + 0.3 * k for k in range(1, 2 * LOOPS + 1))
    return Run(
        seed=seed,
        perplexity=tuple(map(math.exp, losses)),
        cross_entropy=losses,
        norm=norms[:LOOPS],
        perplexity_by_depth=tuple(map(math.exp, losses + drift)),
        norm_by_depth=norms,
        steps=10,
        train_seconds=6.0,
        tokens=1000,
        parameters=1234,
        checkpoint=f"{condition}/seed-{seed}",
    )


@pytest.fixture
def study():
    """Return a function that makes up a study of some conditions and seeds."""

    def make(conditions=tuple(GRID), seeds=(1,), **facts):
        return Results(
            preset="made-up",
            corpus={"name": "invented", "sha256": "0" * 64, "tokenizer": "bytes", "vocab_size": 256},
            environment={"python": "3.0", "gpu": None},
            config={"training": {"steps": 10}},
            num_loops=LOOPS,
            conditions={
                name: ConditionResult(*GRID[name][:4], runs=tuple(made_up_run(name, seed) for seed in seeds))
                for name in conditions
            },
            **facts,
        )

    return make


@pytest.fixture
def diverge():
    """Return a function that makes the run of one seed of one condition diverge."""

    def broken(run):
        lost = (math.nan,) * LOOPS
        return replace(
            run,
            perplexity=lost,
            cross_entropy=lost,
            norm=(run.norm[0], *(math.inf,) * (LOOPS - 1)),
            perplexity_by_depth=lost * 3,
            norm_by_depth=(run.norm[0], *(math.inf,) * (3 * LOOPS - 1)),
        )

    def make(results, condition, seed=1):
        old = results.conditions[condition]
        runs = tuple(broken(run) if run.seed == seed else run for run in old.runs)
        return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})

    return make
