import math
from dataclasses import replace

import pytest

from loopscale.study.topics import looping, training, worth


@pytest.mark.parametrize(
    ("perplexities", "band"),
    [
        ((2.0, 1.0, 1.005, 1.5, 1.0), (2, 3)),  # the best exit decides, not an equal one behind a worse
        ((1.0, 1.5, 2.0), (1, 1)),
        ((2.0, 1.009, 1.0), (2, 3)),
        ((1.0, math.inf, math.nan), (1, 1)),
    ],
)
def test_the_useful_band_is_a_plateau_around_the_best_exit(perplexities, band):
    assert looping.useful_band(perplexities) == band


def test_an_exit_is_dominated_by_an_earlier_one_that_is_as_good(study):
    runs = study().runs("per_loop-rmsnorm")  # losses 2.1, 2, 2, 2
    assert looping.dominated_exits(runs) == {3: 2, 4: 2}
    assert looping.dominated_exits(study().runs("per_loop-final_rmsnorm")) == {}
    assert looping.depth_gain(runs[0]) == pytest.approx(math.exp(0.1))


def test_where_looping_does_not_pay_is_said_in_words(study, diverge):
    results = study(conditions=("per_loop-rmsnorm", "per_loop-raw", "terminal-raw"))
    said = looping.looping_sentence(results)
    assert "at exit 2 in per_loop-rmsnorm (exits 3 and 4 no better), at exit 3 in per_loop-raw (exit 4 no" in said
    old = results.conditions["per_loop-raw"]
    flat = replace(old, runs=tuple(replace(run, cross_entropy=(2.0, 2.0, 1.999, 2.0)) for run in old.runs))
    said = looping.looping_sentence(replace(results, conditions={"per_loop-raw": flat}))
    assert said == "The loops: looping does not pay at all in per_loop-raw (no exit 1% better than exit 1)."
    assert "per_loop-raw" not in looping.looping_sentence(diverge(results, "per_loop-raw"))


def test_a_remedy_has_its_cost_with_what_seeds_decide(study):
    one, many = study(), study(seeds=(1, 2, 3))
    assert worth.remedy_cost(one, "per_loop-raw") == "1.105"
    assert worth.remedy_cost(many, "per_loop-raw") == "1.105 [1.11, 1.11] (worse)"
    assert worth.remedy_cost(many, "per_loop-final_rmsnorm").endswith("(better)")
    old = many.conditions["per_loop-raw"]
    shaky = tuple(
        replace(r, cross_entropy=(2.0, 2.0, 2.0, nats)) for r, nats in zip(old.runs, (1.8, 2.0, 2.3), strict=True)
    )
    mixed = replace(many, conditions={**many.conditions, "per_loop-raw": replace(old, runs=shaky)})
    assert worth.remedy_cost(mixed, "per_loop-raw").endswith("(not decided)")
    assert worth.remedy_cost(study(conditions=("per_loop-raw",)), "per_loop-raw") is None


def test_the_norm_over_training_is_read_from_the_log(study):
    results = study(conditions=("per_loop-rmsnorm", "per_loop-raw"))
    draw = training.TOPIC.figures[0].draw
    assert training.norm_growth(results) is None and draw(results) is None
    log = [{"step": 10 * (i + 1), "loop_norms/4": norm} for i, norm in enumerate((5.0, 80.0, None, 40.0))]
    old = results.conditions["per_loop-rmsnorm"]
    logged = replace(old, runs=tuple(replace(run, measured={"history": log}) for run in old.runs))
    results = replace(results, conditions={**results.conditions, "per_loop-rmsnorm": logged})
    assert training.norm_by_step(logged.runs[0]) == {10: 5.0, 20: 80.0, 40: 40.0}
    rows = {row[0]: row[1:] for row in training.norm_growth(results).rows}
    assert rows["per_loop-rmsnorm"] == ("5.000", "80.00", "20.00", "40.00")
    (line,) = draw(results).series
    assert (line.x, line.y) == ((10, 20, 40), (5.0, 80.0, 40.0))
