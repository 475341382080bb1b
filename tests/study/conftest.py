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


def made_up_measurements(condition, run):
    """Make up what the measurements of a run hold, in their layout: scale is blind behind RMSNorm alone."""
    _, readout, recurrence, penalty, *_ = GRID[condition]
    raw, normed = readout != "rmsnorm", recurrence == "rmsnorm"
    verdict = "visible" if raw or penalty else "removed" if normed else "blind_spot"
    seen_by = {"cross_entropy": [1, 2, 3, 4]} if raw else {"penalty": [1, 2, 3, 4]} if penalty else {}
    visibility = [0.5 if raw else 1e-9] * LOOPS
    retention = [0.0 if normed else 1.0] * LOOPS
    scale = [10.0 * (k + 1) for k in range(30)]
    losses = {"none": list(run.cross_entropy), "remove_radial": [x + 0.5 for x in run.cross_entropy]}
    exits = [
        {
            "exit": k + 1,
            "cross_entropy": math.log(perplexity),
            "cross_entropy_se": 0.01,
            "perplexity": perplexity,
            "perplexity_se": 0.01 * perplexity,
            "bits_per_byte": math.log2(perplexity),
            "norm": norm,
            "flops": 1e6 * (k + 1),
            "tokens_per_second": 1000.0 / (k + 1) if k < LOOPS else None,
        }
        for k, (perplexity, norm) in enumerate(zip(run.perplexity_by_depth, run.norm_by_depth, strict=True))
    ]
    safe = {
        "first": 2,
        "last": 5,
        "best": 4,
        "turns_up_at": 6,
        "norm_trained": run.norm[-1],
        "norm_deepest": run.norm_by_depth[-1],
    }
    curve = {"reading": "trained", "exits": exits, "safe_range": safe}
    rule = {"rule": "entropy", "threshold": 0.5, "level": "sequence", "num_loops": LOOPS}
    interval = {"value": 1.005, "low": 1.001, "high": 1.009}
    return {
        "depth": {"trained": curve, "final": curve} if readout == "final_rmsnorm" else {"trained": curve},
        "halting": {
            "oracle": {level: {"relative_perplexity": 1.01, "selected_loops": 1.5} for level in ("sequence", "token")},
            "results": [
                {"rule": rule, "relative_perplexity": interval, "selected_loops": interval, "executed_loops": interval}
            ],
            "times": [{"rule": rule, "loop_saving": 0.5, "time_saving": 0.4}],
        },
        "audit": {
            "verdicts": {"scale": verdict, "mean": "visible"},
            "radial_gradient": [2.0 if raw else 1e-8] * LOOPS,
            "retention": retention,
            "lemma2": {"loops": 30, "slope": -1.1, "r_squared": 1.0},
            "interventions": {"cross_entropy": losses},
            "norms": [{"norm": x, "norm_median": 0.9 * x, "norm_p99": 2 * x, "norm_max": 3 * x} for x in run.norm],
            "curves": {"scale": scale, "angular_step": [5 / s for s in scale[:-1]]},
            "audit": {
                "coordinates": {
                    "scale": {
                        "visibility": visibility,
                        "retention": retention,
                        "drift": [0.25] * LOOPS,
                        "seen_by": seen_by,
                    }
                }
            },
        },
    }


@pytest.fixture
def measured_study(study):
    """Return a function that makes up a study whose runs carry every measurement."""

    def make(**wanted):
        results = study(**wanted)
        return replace(
            results,
            conditions={
                name: replace(c, runs=tuple(replace(run, extra=made_up_measurements(name, run)) for run in c.runs))
                for name, c in results.conditions.items()
            },
        )

    return make


@pytest.fixture
def with_extra():
    """Return a function that changes one figure in the measurements of every run of a condition."""

    def changed(value, path, new):
        if not path:
            return new
        key, *rest = path
        if isinstance(value, list):
            return [changed(item, rest, new) if i == key else item for i, item in enumerate(value)]
        return {**value, key: changed(value[key], rest, new)}

    def make(results, condition, path, new):
        old = results.conditions[condition]
        runs = tuple(replace(run, extra=changed(run.extra, path, new)) for run in old.runs)
        return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})

    return make
