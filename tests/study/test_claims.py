import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from loopscale.evaluate.statistics import interval_over_seeds
from loopscale.study import TOPICS, judged, published
from loopscale.study.results import Failed
from loopscale.study.topics import audit, depth, worth

APART = {f"lower-perplexity-{name}" for name in ("raw", "final_rmsnorm", "penalty")}
AUDIT, DEPTH, CONTROLLED = audit.TOPIC, depth.TOPIC, worth.CONTROLLED
CLAIMS = tuple(claim for topic in TOPICS for claim in topic.claims)


def by_id(results):
    return {claim.id: claim for claim in judged(results).claims}


def with_losses(results, condition, *losses):
    """Replace the losses of every run of a condition."""
    old = results.conditions[condition]
    runs = tuple(replace(run, cross_entropy=losses) for run in old.runs)
    return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})


def with_final_norms(results, condition, *norms):
    """Replace the final norm of a condition's runs, in the order of their seeds."""
    old = results.conditions[condition]
    pairs = zip(old.runs, norms, strict=True)
    runs = tuple(replace(run, norm=(*run.norm[:-1], norm)) for run, norm in pairs)
    return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})


def test_values_and_verdicts_of_a_made_up_study(study):
    judgements = by_id(study())
    values = {id: claim.value for id, claim in judgements.items()}
    assert values["norm-ratio-raw"] == pytest.approx(800 / 9.5)
    assert values["norm-ratio-penalty"] == pytest.approx(800 / 19.5)
    assert values["penalty-bounds-norm"] == pytest.approx(19.5)
    assert values["terminal-exit1-unusable"] == pytest.approx(math.exp(7))
    assert values["per_loop-exit1-usable"] == pytest.approx(math.exp(0.1))
    assert values["lower-perplexity-final_rmsnorm"] == pytest.approx(math.exp(-0.1))
    assert values["inter-loop-norm"] == pytest.approx(1.0)
    failing = {id for id, claim in judgements.items() if claim.verdict == "does not hold"}
    assert failing == {"keeps-improving-rmsnorm"}  # its first exit is a tenth of a nat worse than the others
    open_ = {id for id, claim in judgements.items() if claim.verdict == "undecided"}
    assert open_ == {*APART, "better-at-equal-depth", "remedies-cost-nothing"}  # one seed, near the threshold
    assert values["keeps-improving-raw"] == pytest.approx(math.exp(0.2))
    assert values["remedies-cost-nothing"] == pytest.approx(math.exp(0.1))
    assert {claim.n for claim in judgements.values() if claim.verdict != "not tested here"} == {1}


@pytest.mark.parametrize(("norm", "verdict"), [(100.0, "holds"), (99.0, "does not hold"), (101.0, "holds")])
def test_the_norm_ratio_is_judged_at_ten(study, norm, verdict):
    results = with_final_norms(study(), "per_loop-rmsnorm", norm)
    assert by_id(with_final_norms(results, "per_loop-raw", 10.0))["norm-ratio-raw"].verdict == verdict


@pytest.mark.parametrize(("norm", "verdict"), [(99.0, "holds"), (100.0, "does not hold")])
def test_the_penalty_bound_is_strict(study, norm, verdict):
    results = with_final_norms(study(), "per_loop-rmsnorm-penalty", norm)
    assert by_id(results)["penalty-bounds-norm"].verdict == verdict


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [((300.0, 50.0, 10.0), "undecided"), ((300.0, 310.0, 290.0), "holds"), ((30.0, 31.0, 29.0), "does not hold")],
)
def test_several_seeds_are_judged_by_the_interval_of_their_mean(study, norms, verdict):
    results = with_final_norms(study(seeds=(1, 2, 3)), "per_loop-rmsnorm", *norms)
    claim = by_id(with_final_norms(results, "per_loop-raw", 10.0, 10.0, 10.0))["norm-ratio-raw"]
    ratios = tuple(norm / 10 for norm in norms)
    assert claim.values == ratios and claim.seeds == (1, 2, 3) and claim.verdict == verdict
    assert (claim.n, claim.agree) == (3, sum(ratio >= 10 for ratio in ratios))
    logs = [math.log(ratio) for ratio in ratios]
    reach = 4.302653 * stdev(logs) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert claim.low == pytest.approx(math.exp(fmean(logs) - reach), rel=1e-5)
    assert claim.high == pytest.approx(math.exp(fmean(logs) + reach), rel=1e-5)
    assert claim.noise == pytest.approx(stdev(ratios))


def test_an_interval_around_a_band_is_undecided(measured_study, with_record):
    """Every seed lies outside on one side or the other, the mean inside."""
    results = measured_study(seeds=(1, 2))
    slopes = iter((-0.5, -1.5))
    results = with_record(results, "per_loop-rmsnorm", AUDIT, lambda record: set_slope(next(slopes))(record))
    claim = by_id(results)["angular-step-slope"]
    assert (claim.value, claim.agree, claim.verdict) == (-1.0, 0, "undecided")


@pytest.mark.parametrize(
    ("nats", "verdict"), [(1.7, "holds"), (1.9, "undecided"), (2.1, "undecided"), (2.4, "does not hold")]
)
def test_one_seed_of_models_trained_apart_decides_what_lies_far_off(study, nats, verdict):
    results = with_losses(study(), "per_loop-raw", 3.0, 3.0, 3.0, nats)  # against 2 nats
    claim = by_id(results)["lower-perplexity-raw"]
    assert (claim.verdict, claim.low, claim.noise) == (verdict, None, None)


def test_only_shared_seeds_are_compared(study):
    few, many = study(seeds=(2,)), study(seeds=(1, 2))
    mixed = {**many.conditions, "per_loop-raw": few.conditions["per_loop-raw"]}
    assert by_id(replace(many, conditions=mixed))["norm-ratio-raw"].seeds == (2,)
    other = {**study(seeds=(1,)).conditions, "per_loop-raw": few.conditions["per_loop-raw"]}
    claim = by_id(replace(few, conditions=other))["norm-ratio-raw"]
    assert claim.verdict == "not tested here" and "no seed in common" in claim.note


def test_missing_conditions_leave_claims_untested(study):
    judgements = by_id(study(conditions=("per_loop-rmsnorm", "per_loop-raw")))
    tested = {id for id, claim in judgements.items() if claim.verdict != "not tested here"}
    gains = {"keeps-improving-raw", "keeps-improving-rmsnorm"}
    assert tested == {"norm-ratio-raw", "per_loop-exit1-usable", "lower-perplexity-raw", *gains}
    claim = judgements["norm-ratio-penalty"]
    assert (claim.value, claim.n, claim.values) == (None, 0, ())
    assert claim.note == "Needs per_loop-rmsnorm-penalty."


def test_a_study_without_runs_tests_nothing(study):
    assert {claim.verdict for claim in judged(study(conditions=())).claims} == {"not tested here"}
    assert {claim.verdict for claim in judged(study(seeds=())).claims} == {"not tested here"}


def test_one_diverged_seed_leaves_a_claim_untested_and_says_so(study, diverge):
    judgements = by_id(diverge(study(seeds=(1, 2)), "per_loop-raw", seed=2))
    claim = judgements["norm-ratio-raw"]
    assert claim.verdict == "not tested here" and claim.note == "per_loop-raw diverged with seed 2."
    assert judgements["norm-ratio-penalty"].verdict == "holds"


def test_a_perplexity_that_has_no_float_is_judged_by_its_loss(study):
    results = with_losses(study(), "terminal-rmsnorm", 5000.0, 7.0, 4.0, 2.0)
    assert by_id(results)["terminal-exit1-unusable"].verdict == "holds"


def test_a_norm_of_zero_is_not_divided_by(study):
    claim = by_id(with_final_norms(study(), "per_loop-raw", 0.0))["norm-ratio-raw"]
    assert claim.verdict == "not tested here" and claim.note == "Not measured with seed 1."


def test_identifiers_are_unique_and_only_our_own_claims_have_no_published_figure():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert [claim.id for claim in CLAIMS if claim.published is None] == [
        "inter-loop-norm",
        "inter-loop-norm-forgets-scale",
        "radial-growth-used",
    ]


def test_the_published_figures_meet_the_claims_that_carry_them():
    smallest, bound = min(published.RMSNORM_FINAL_NORM.values()), max(published.PENALTY_FINAL_NORM)
    thresholds = {claim.id: claim.threshold for claim in CLAIMS}
    assert thresholds["norm-ratio-penalty"].holds(smallest / bound)
    assert thresholds["penalty-bounds-norm"].holds(bound)
    base = published.PERPLEXITY_129M["per_loop-rmsnorm"]
    assert thresholds["per_loop-exit1-usable"].holds(base[0] / base[-1])
    for id, name in (("raw", "raw"), ("final_rmsnorm", "final_rmsnorm"), ("penalty", "rmsnorm-penalty")):
        ratio = published.PERPLEXITY_129M[f"per_loop-{name}"][-1] / base[-1]
        assert thresholds[f"lower-perplexity-{id}"].holds(ratio)
    for id in ("better-at-equal-depth", "better-at-equal-throughput"):
        worst = max(a / b for name in CONTROLLED for a, b in zip(published.PERPLEXITY_129M[name], base, strict=True))
        assert thresholds[id].holds(worst)
    for id, name in (
        ("raw", "raw"),
        ("final_rmsnorm", "final_rmsnorm"),
        ("penalty", "rmsnorm-penalty"),
        ("rmsnorm",) * 2,
    ):
        exits = published.PERPLEXITY_129M[f"per_loop-{name}"]
        assert thresholds[f"keeps-improving-{id}"].holds(exits[0] / min(exits))


MEASURED = {
    "better-at-equal-throughput",
    "radial-gradient",
    "scale-blind-spot",
    "scale-remedies",
    "residual-retains-scale",
    "inter-loop-norm-forgets-scale",
    "angular-step-slope",
    "radial-growth-used",
}


def with_speeds(results, condition, with_record, speeds):
    """Replace the tokens per second of a condition's trained exits."""

    def change(record):
        exits = record["trained"].exits
        timed = [replace(exit, tokens_per_second=s) for exit, s in zip(exits, speeds, strict=False)]
        return {**record, "trained": replace(record["trained"], exits=(*timed, *exits[len(timed) :]))}

    return with_record(results, condition, DEPTH, change)


def steady(results, with_record, factor=1.0, condition=None):
    """Give every exit k of the conditions, or of one, 1000 / k tokens per second times a factor."""
    for name in results.conditions if condition is None else [condition]:
        results = with_speeds(results, name, with_record, [factor * 1000 / k for k in range(1, 5)])
    return results


def test_claims_on_measurements_are_judged_by_them(measured_study, with_record, records):
    judgements = by_id(steady(measured_study(seeds=(1, 2)), with_record))
    plain, raw, normed = (records[f"per_loop-{name}"]["audit"] for name in ("rmsnorm", "raw", "rmsnorm-normed"))
    losses = plain.interventions.cross_entropy
    expected = {
        "better-at-equal-throughput": math.exp(0.2),  # exits of equal speed: the worst is exit 1 of raw readouts
        "radial-gradient": sum(plain.radial_gradient) / sum(raw.radial_gradient),
        "scale-blind-spot": 2,
        "scale-remedies": 4,
        "residual-retains-scale": plain.audit.coordinates["scale"].retention[-1],
        "inter-loop-norm-forgets-scale": normed.audit.coordinates["scale"].retention[-1],
        "angular-step-slope": plain.curves.fit.slope,
        "radial-growth-used": math.exp(losses["remove_radial"][-1] - losses["none"][-1]),
    }
    assert {id: judgements[id].value for id in MEASURED} == pytest.approx(expected)
    assert {judgements[id].verdict for id in MEASURED - {"better-at-equal-throughput", "radial-growth-used"}} == {
        "holds"
    }


def test_claims_on_measurements_that_a_study_lacks_are_not_tested(study, measured_study, with_record):
    lost = measured_study()
    for name in lost.conditions:
        for topic in (AUDIT, DEPTH):
            lost = with_record(lost, name, topic, lambda record: Failed("no state is finite."))
    for results in (study(), lost):
        judgements = by_id(results)
        assert {id for id, claim in judgements.items() if claim.verdict == "not tested here"} == MEASURED
        assert {judgements[id].note.split(".")[0] for id in MEASURED} == {"Not measured with seed 1"}


def set_verdict(word):
    return lambda record: replace(record, verdicts={**record.verdicts, "scale": word})


def set_slope(slope):
    return lambda record: replace(record, lemma2=replace(record.lemma2, slope=slope))


def set_loops(field, *values):
    return lambda record: replace(record, **{field: values})


@pytest.mark.parametrize(
    ("id", "condition", "worse", "lost"),
    [
        (
            "radial-gradient",
            "per_loop-rmsnorm",
            set_loops("radial_gradient", 9.0),
            set_loops("radial_gradient", math.nan),
        ),
        ("scale-blind-spot", "terminal-rmsnorm", set_verdict("visible"), lambda record: Failed("why")),
        ("scale-remedies", "per_loop-rmsnorm-penalty", set_verdict("blind_spot"), lambda record: Failed("why")),
        (
            "residual-retains-scale",
            "per_loop-rmsnorm",
            set_loops("retention", 1.0, 0.8),
            set_loops("retention", math.nan),
        ),
        ("inter-loop-norm-forgets-scale", "per_loop-rmsnorm-normed", set_loops("retention", 0.2), lambda r: Failed("")),
        ("angular-step-slope", "per_loop-rmsnorm", set_slope(-1.3), set_slope(None)),
        ("angular-step-slope", "per_loop-rmsnorm", set_slope(-0.7), set_slope(math.inf)),
    ],
)
def test_a_measurement_can_refute_its_claim(measured_study, with_record, id, condition, worse, lost):
    assert by_id(measured_study())[id].verdict == "holds"
    assert by_id(with_record(measured_study(), condition, AUDIT, worse))[id].verdict == "does not hold"
    assert by_id(with_record(measured_study(), condition, AUDIT, lost))[id].verdict == "not tested here"


def test_equal_throughput_compares_a_slow_exit_with_a_deeper_one(measured_study, with_record):
    """A reference a tenth faster than the others is read between its exits."""
    results = with_losses(steady(measured_study(), with_record), "per_loop-rmsnorm", 3.0, 2.0, 1.5, 1.0)
    for name in CONTROLLED:
        results = with_losses(results, name, 2.5, 2.4, 2.3, 2.2)
    results = steady(results, with_record, 1.1, "per_loop-rmsnorm")
    # in the time of their exit 3 the reference is at 3.3, between losses 1.5 and 1.0; their exit 4 lies outside
    reference = 1.5 - 0.5 * math.log(3.3 / 3) / math.log(4 / 3)
    assert by_id(results)["better-at-equal-throughput"].value == pytest.approx(math.exp(2.3 - reference))


@pytest.mark.parametrize("speed", [300.0, math.nan, None])
def test_throughputs_that_are_noise_or_missing_are_not_compared(measured_study, with_record, speed):
    results = steady(measured_study(), with_record)
    noisy = with_speeds(results, "per_loop-raw", with_record, [1000.0, speed])
    claim = by_id(noisy)["better-at-equal-throughput"]
    assert claim.verdict == "not tested here" and "1.25×" in claim.note


def test_students_quantiles_are_those_of_the_tables():
    found = [interval_over_seeds([0.0] * n + [1.0]) for n in (1, 2, 4, 10)]
    assert interval_over_seeds([1.0]) is None
    for n, quantile, interval in zip((2, 3, 5, 11), (12.7062, 4.30265, 2.77645, 2.22814), found, strict=True):
        reach = quantile * stdev([0.0] * (n - 1) + [1.0]) / math.sqrt(n)
        assert interval.high - interval.value == pytest.approx(reach, rel=1e-5)
