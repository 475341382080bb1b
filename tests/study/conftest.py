"""Made-up studies: round, artificial curves, so that no test mistakes them for measurements, and real records."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from loopscale.data import load_data
from loopscale.storage import plain, read_json, write_json
from loopscale.study import ConditionResult, Results, Run
from loopscale.study.document import run_from
from loopscale.study.grid import PAPER, RATE, SCALE_CONTROL
from loopscale.study.worker import measure
from tests.helpers import made_once, shapes_unchecked, tiny_model

LOOPS = 4
# losses at the four exits, norm of loop 1, its growth per loop
GRID = {
    "terminal-rmsnorm": ((9.0, 7.0, 4.0, 2.0), 100.0, 90.0),
    "terminal-raw": ((8.0, 6.0, 3.5, 2.1), 5.0, 2.0),
    "per_loop-rmsnorm": ((2.1, 2.0, 2.0, 2.0), 200.0, 200.0),
    "per_loop-raw": ((2.3, 2.2, 2.1, 2.1), 8.0, 0.5),
    "per_loop-final_rmsnorm": ((2.3, 2.1, 2.0, 1.9), 9.0, 4.0),
    "terminal-rmsnorm-penalty": ((9.5, 7.5, 4.5, 2.0), 12.0, 1.0),
    "per_loop-rmsnorm-penalty": ((2.2, 2.1, 2.0, 2.1), 15.0, 1.5),
    "per_loop-rmsnorm-normed": ((2.2, 2.0, 2.0, 2.0), 22.0, 0.0),
}


def made_up_run(condition, seed):
    losses, first, growth = GRID[condition]
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
            config=facts.pop("config", {"training": {"steps": 10}}),
            num_loops=LOOPS,
            conditions={
                name: ConditionResult(dict(PAPER[name]), tuple(made_up_run(name, seed) for seed in seeds))
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


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """Return what is measured of a tiny model of each condition, by topic, as a document gives it back."""

    def measure_all(folder):
        write_json(folder / "records.json", _documents(folder))

    documents = read_json(made_once(tmp_path_factory, "records", measure_all) / "records.json", dict[str, Any])
    return {name: run_from(document, "measured").measured for name, document in documents.items()}


def _documents(folder):
    text = folder / "text.txt"
    text.write_text("\n".join(f"{i} squared is {i * i}" for i in range(1500)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
        data = load_data(str(text), "bytes", sequence_length=16)
    with shapes_unchecked():
        return {name: _document_of(edit, data) for name, edit in PAPER.items()}


def _document_of(edit, data):
    torch.manual_seed(0)
    model = tiny_model(**{**edit, "vocab_size": 256, "num_loops": LOOPS})
    facts = {"seed": 1, "steps": 0, "train_seconds": 0.0, "parameters": 1, "checkpoint": ""}
    facts["history"] = [{"step": n, "loss": 90.0 / n**2, f"loop_norms/{LOOPS}": 10.0 * n} for n in (1, 2, 3)]
    return plain({**facts, **measure(model, data)})


@pytest.fixture
def measured_study(study, records):
    """Return a function that makes up a study whose runs carry real measurements, of tiny models."""

    def make(**wanted):
        results = study(**wanted)
        return replace(
            results,
            conditions={
                name: replace(c, runs=tuple(replace(run, measured=records[name]) for run in c.runs))
                for name, c in results.conditions.items()
            },
        )

    return make


@pytest.fixture
def with_record():
    """Return a function that changes one topic's record in every run of a condition."""

    def make(results, condition, topic, change):
        old = results.conditions[condition]
        runs = tuple(
            replace(run, measured={**run.measured, topic.name: change(run.measured[topic.name])}) for run in old.runs
        )
        return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})

    return make


# (entry, rate) -> the condition whose made-up run and record it has, and the loss of its last exit
RUNS = {
    ("none", 0.001): ("per_loop-rmsnorm", 2.5),
    ("none", 0.003): ("per_loop-rmsnorm", 2.0),
    ("raw", 0.003): ("per_loop-raw", 1.9),
    ("inter_loop_norm", 0.001): ("per_loop-rmsnorm-normed", 2.2),
}


@pytest.fixture
def ways(study, records):
    """Return a function that makes up a study of ways to control the scale."""

    def make(seeds=(1, 2, 3), runs=RUNS):
        base = study(seeds=seeds)
        conditions = {}
        for (entry, rate), (like, nats) in runs.items():
            losses = [
                replace(run, cross_entropy=(*run.cross_entropy[:-1], nats + 0.01 * run.seed), measured=records[like])
                for run in base.runs(like)
            ]
            model = {**base.conditions[like].model, **SCALE_CONTROL[entry], RATE: rate}
            conditions[f"{entry}@{rate}"] = ConditionResult(model, tuple(losses))
        return replace(base, conditions=conditions)

    return make
