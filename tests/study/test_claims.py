import math
from dataclasses import replace

import pytest

from loopscale.study import claims, published
from loopscale.study.claim import Claim, at_least, per_seed
from loopscale.study.claims import CLAIMS, judged
from loopscale.study.depth_claims import CONTROLLED


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
    assert failing == {"lower-perplexity-raw", "lower-perplexity-penalty", "better-at-equal-depth"}
    assert {claim.n for claim in judgements.values() if claim.verdict != "not tested here"} == {1}


@pytest.mark.parametrize(("norm", "verdict"), [(100.0, "holds"), (99.0, "does not hold"), (101.0, "holds")])
def test_the_norm_ratio_is_judged_at_ten(study, norm, verdict):
    results = with_final_norms(study(), "per_loop-rmsnorm", norm)
    assert by_id(with_final_norms(results, "per_loop-raw", 10.0))["norm-ratio-raw"].verdict == verdict


@pytest.mark.parametrize(("norm", "verdict"), [(99.0, "holds"), (100.0, "does not hold")])
def test_the_penalty_bound_is_strict(study, norm, verdict):
    results = with_final_norms(study(), "per_loop-rmsnorm-penalty", norm)
    assert by_id(results)["penalty-bounds-norm"].verdict == verdict


def test_several_seeds_give_mean_values_and_the_count_that_agrees(study):
    results = with_final_norms(study(seeds=(1, 2, 3)), "per_loop-rmsnorm", 300.0, 50.0, 10.0)
    claim = by_id(with_final_norms(results, "per_loop-raw", 10.0, 10.0, 10.0))["norm-ratio-raw"]
    assert claim.values == (30.0, 5.0, 1.0) and claim.seeds == (1, 2, 3)
    assert claim.value == 12.0 and claim.verdict == "holds"
    assert (claim.n, claim.agree) == (3, 1)  # the mean holds, two of the seeds alone do not


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
    assert tested == {"norm-ratio-raw", "per_loop-exit1-usable", "lower-perplexity-raw"}
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


def test_a_further_claim_needs_the_list_alone(study, monkeypatch):
    audited = Claim(
        id="retention",
        statement="An audit found the scale retained.",
        measure=per_seed(lambda run: run.extra.get("retention"), "per_loop-raw"),
        threshold=at_least(0.5),
        published=None,
    )
    monkeypatch.setattr(claims, "CLAIMS", (*CLAIMS, audited))
    results = study(seeds=(1, 2))
    assert by_id(results)["retention"].verdict == "not tested here"
    old = results.conditions["per_loop-raw"]
    runs = tuple(replace(run, extra={"retention": 0.25 * run.seed}) for run in old.runs)
    measured = replace(results, conditions={"per_loop-raw": replace(old, runs=runs)})
    claim = by_id(measured)["retention"]
    assert (claim.values, claim.verdict) == ((0.25, 0.5), "does not hold")


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


def test_claims_on_measurements_are_judged_by_them(measured_study):
    judgements = by_id(measured_study(seeds=(1, 2)))
    values = {id: judgements[id].value for id in MEASURED}
    assert values == pytest.approx(
        {
            "better-at-equal-throughput": math.exp(0.2),  # exits of equal speed: the worst is exit 1 of raw readouts
            "radial-gradient": 1e-8 / 2,
            "scale-blind-spot": 2,
            "scale-remedies": 4,
            "residual-retains-scale": 1,
            "inter-loop-norm-forgets-scale": 0,
            "angular-step-slope": -1.1,
            "radial-growth-used": math.exp(0.5),
        }
    )
    assert {id for id in MEASURED if judgements[id].verdict != "holds"} == {"better-at-equal-throughput"}


def test_claims_on_measurements_that_a_study_lacks_are_not_tested(study):
    judgements = by_id(study())
    assert {id for id, claim in judgements.items() if claim.verdict == "not tested here"} == MEASURED
    assert {judgements[id].note.split(".")[0] for id in MEASURED} == {"Not measured with seed 1"}


@pytest.mark.parametrize(
    ("id", "condition", "path", "worse"),
    [
        ("radial-gradient", "per_loop-rmsnorm", ["audit", "radial_gradient"], [0.1] * 4),
        ("scale-blind-spot", "terminal-rmsnorm", ["audit", "verdicts", "scale"], "visible"),
        ("scale-remedies", "per_loop-rmsnorm-penalty", ["audit", "verdicts", "scale"], "blind_spot"),
        ("residual-retains-scale", "per_loop-rmsnorm", ["audit", "retention"], [1.0, 1.0, 1.0, 0.8]),
        ("inter-loop-norm-forgets-scale", "per_loop-rmsnorm-normed", ["audit", "retention"], [0.0, 0.0, 0.0, 0.2]),
        ("angular-step-slope", "per_loop-rmsnorm", ["audit", "lemma2", "slope"], -1.3),
        ("angular-step-slope", "per_loop-rmsnorm", ["audit", "lemma2", "slope"], -0.7),
    ],
)
def test_a_measurement_can_refute_its_claim(measured_study, with_extra, id, condition, path, worse):
    assert by_id(measured_study())[id].verdict == "holds"
    assert by_id(with_extra(measured_study(), condition, path, worse))[id].verdict == "does not hold"
    lost = [None] * 4 if isinstance(worse, list) else None
    assert by_id(with_extra(measured_study(), condition, path, lost))[id].verdict == "not tested here"


def test_equal_throughput_compares_a_slow_exit_with_a_deeper_one(measured_study, with_extra):
    """A reference a tenth faster than the others is read between its exits."""
    results = measured_study()
    plain = with_losses(results, "per_loop-rmsnorm", 3.0, 2.0, 1.5, 1.0)
    for name in CONTROLLED:
        plain = with_losses(plain, name, 2.5, 2.4, 2.3, 2.2)
    for k in range(4):
        path = ["depth", "trained", "exits", k, "tokens_per_second"]
        plain = with_extra(plain, "per_loop-rmsnorm", path, 1100.0 / (k + 1))
    # in the time of their exit 3 the reference is at 3.3, between losses 1.5 and 1.0; their exit 4 lies outside
    reference = 1.5 - 0.5 * math.log(3.3 / 3) / math.log(4 / 3)
    assert by_id(plain)["better-at-equal-throughput"].value == pytest.approx(math.exp(2.3 - reference))


def test_throughputs_that_are_noise_are_not_compared(measured_study, with_extra):
    path = ["depth", "trained", "exits", 1, "tokens_per_second"]
    noisy = with_extra(measured_study(), "per_loop-raw", path, 300.0)
    claim = by_id(noisy)["better-at-equal-throughput"]
    assert claim.verdict == "not tested here" and "1.25×" in claim.note
