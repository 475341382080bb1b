import math
from dataclasses import replace

import pytest

from loopscale.errors import InputError
from loopscale.study import judged
from loopscale.study.best_rates import AT_BEST_RATES, by_name
from loopscale.study.grid import PAPER, RATE, named_conditions
from loopscale.study.report.claims import answer, claims_table
from loopscale.study.report.page_content import ON_PAGE, page, sentences, tables_of
from loopscale.study.topics import rates


def at(study, nats_by_rate, condition="per_loop-rmsnorm"):
    """Make up a study of one condition at several rates: None is that of the study itself."""
    base = study(conditions=(condition,), seeds=(1, 2))
    base = replace(base, config={**base.config, "train": {"learning_rate": 0.002}})
    old = base.conditions[condition]
    conditions = {}
    for rate, nats in nats_by_rate.items():
        runs = tuple(
            replace(
                run,
                cross_entropy=(*run.cross_entropy[:-1], nats),
                perplexity=(*run.perplexity[:-1], math.exp(nats)),
            )
            for run in old.runs
        )
        conditions[condition if rate is None else f"{condition}@{rate:g}"] = replace(old, runs=runs)
    return replace(base, conditions=conditions)


def test_a_condition_counts_at_its_own_rate_and_at_the_study_s(study):
    results = at(study, {None: 2.0, 0.0005: 1.9, 0.004: 2.3})
    (names,) = rates.conditions_at_rates(results).values()
    assert [*names] == [0.0005, 0.002, 0.004] and rates.best_rate(results, names) == 0.0005
    assert rates.at_best_rate(results, "per_loop-rmsnorm") == results.runs("per_loop-rmsnorm@0.0005")
    assert rates.at_best_rate(results, "per_loop-raw") == ()
    table = rates.rates(results)
    column = [c.heading for c in table.columns].index("over its best")
    assert [row[column] for row in table.rows] == ["1.00×", "1.11×", "1.49×"]
    assert "is 6.686 in per_loop-rmsnorm (at 0.0005, the lowest tried)." in rates.rates_sentence(results)
    (series,) = rates.rates_chart(results).series
    assert (series.name, series.x) == ("per_loop-rmsnorm", (0.0005, 0.002, 0.004))


def test_rates_are_compared_over_the_seeds_that_they_share(study):
    results = at(study, {None: 2.0, 0.004: 2.3})
    usual = results.conditions["per_loop-rmsnorm"]
    easy = replace(usual.runs[1], cross_entropy=(*usual.runs[1].cross_entropy[:-1], 1.0))
    only = replace(results.conditions["per_loop-rmsnorm@0.004"], runs=results.runs("per_loop-rmsnorm@0.004")[:1])
    conditions = {"per_loop-rmsnorm": replace(usual, runs=(usual.runs[0], easy)), "per_loop-rmsnorm@0.004": only}
    results = replace(results, conditions=conditions)
    (names,) = rates.conditions_at_rates(results).values()
    assert rates.cost(results, names, 0.004) == pytest.approx(0.3)
    other = replace(only, runs=(replace(only.runs[0], seed=9),))
    results = replace(results, conditions={**conditions, "per_loop-rmsnorm@0.004": other})
    assert math.isnan(rates.cost(results, names, 0.004)) and "–" in rates.rates(results).rows[1]


def test_what_diverged_is_never_the_best_and_is_not_drawn(study):
    results = at(study, {None: 2.0, 0.0005: math.nan})
    (names,) = rates.conditions_at_rates(results).values()
    assert rates.best_rate(results, names) == 0.002
    assert "diverged" in rates.rates(results).rows[0]
    assert math.isnan(rates.rates_chart(results).series[0].y[0])


def test_the_highest_rate_has_its_price_by_what_the_audit_says_of_the_scale(study, records):
    results = at(study, {None: 2.0, 0.0005: 1.9, 0.004: 2.3})
    audited = {
        name: replace(c, runs=tuple(replace(run, measured=records["per_loop-rmsnorm"]) for run in c.runs))
        for name, c in results.conditions.items()
    }
    results = replace(results, conditions=audited)
    assert rates.cost_of_the_highest_rate(results) == {"blind_spot": [pytest.approx(0.4)]}
    assert rates.rates_sentence(results).endswith(
        "; at the highest that all have, over that, it is 1.49× where scale is a blind spot."
    )


def test_a_rate_that_some_conditions_lack_compares_none_of_them(study):
    ours, theirs = at(study, {None: 2.0, 0.0005: 1.9, 0.004: 2.3}), at(study, {None: 2.0, 0.001: 2.1}, "per_loop-raw")
    results = replace(ours, conditions={**ours.conditions, **theirs.conditions})
    assert rates.at_the_highest_rate(results) == {"per_loop-rmsnorm": "1.11×", "per_loop-raw": "1.00×"}  # at 0.002
    without = {name: result for name, result in results.conditions.items() if name != "per_loop-raw"}
    lone = at(study, {0.001: 2.1, 0.0001: 2.0}, "per_loop-raw").conditions
    assert rates.at_the_highest_rate(replace(results, conditions={**without, **lone})) == {}


def test_one_rate_makes_no_table(study):
    results = at(study, {None: 2.0})
    assert rates.rates(results) is rates.rates_chart(results) is rates.rates_sentence(results) is None


def test_conditions_are_named_at_rates_and_all_at_once():
    named = named_conditions(["per_loop-raw@0.003", "per_loop-raw@0.001", "per_loop-raw", "terminal-raw"])
    assert list(named) == ["terminal-raw", "per_loop-raw", "per_loop-raw@0.001", "per_loop-raw@0.003"]
    assert named["per_loop-raw@0.003"] == {**PAPER["per_loop-raw"], RATE: 0.003}
    assert named_conditions(["all"]) == named_conditions(None) == dict(PAPER)
    assert list(named_conditions(["all", "terminal-raw@0.1"]))[:3] == [
        "terminal-rmsnorm",
        "terminal-raw",
        "terminal-raw@0.1",
    ]
    for wrong in ("per_loop-raw@", "per_loop-raw@x", "raw@0.1", "al"):
        with pytest.raises(InputError, match="condition"):
            named_conditions([wrong])


def test_claims_take_conditions_with_rates_of_their_own_at_the_best_of_them(study):
    blind = at(study, {0.0005: 1.9, 0.004: 2.3})
    raw = at(study, {0.0005: 2.2, 0.004: 1.5}, "per_loop-raw")
    results = judged(replace(blind, conditions={**blind.conditions, **raw.conditions}))
    (claim,) = (claim for claim in results.claims if claim.id == "lower-perplexity-raw")
    assert claim.value == pytest.approx(math.exp(1.5 - 1.9)) and claim.verdict == "holds"
    said = "per_loop-rmsnorm at 0.0005, per_loop-raw at 0.004"
    assert said in answer(results) and said in claims_table(results).caption and said in page(results, ())
    assert [*results.conditions] == [*blind.conditions, *raw.conditions]
    (remedies,) = (said for said in sentences(results) if said.startswith("The remedies"))
    assert "0.670" in remedies and remedies.endswith(f"({AT_BEST_RATES})")
    (beside,) = (table for table in tables_of(ON_PAGE, results) if table.name == "beside-the-paper")
    assert [row[0] for row in beside.rows] == ["per_loop-rmsnorm", "per_loop-raw"] and AT_BEST_RATES in beside.caption


def test_claims_are_of_the_rate_of_the_study_where_all_have_it(study):
    results = at(study, {None: 2.0, 0.0005: 1.9})
    assert by_name(results) is results and "at the best" not in answer(judged(results))


def test_no_searched_rate_is_held_against_one_that_was_not(study):
    blind = at(study, {None: 2.0, 0.004: 1.4})
    raw = at(study, {0.0005: 1.9, 0.004: 1.5}, "per_loop-raw")
    results = judged(replace(blind, conditions={**blind.conditions, **raw.conditions}))
    (claim,) = (claim for claim in results.claims if claim.id == "lower-perplexity-raw")
    assert claim.value == pytest.approx(math.exp(1.5 - 1.4)) and claim.verdict == "does not hold"
    assert "per_loop-rmsnorm at 0.004, per_loop-raw at 0.004" in answer(results)
    (remedies,) = (said for said in sentences(results) if said.startswith("The remedies"))
    assert "1.105" in remedies


def test_one_rate_of_its_own_makes_no_comparison_of_rates(study):
    results = at(study, {0.004: 1.4})
    assert rates.rates(results) is None and rates.rates_sentence(results) is None
    assert not any(said.startswith("The learning rates") for said in sentences(results))
    assert not any(table.name == "rates" for table in tables_of(ON_PAGE, results))
