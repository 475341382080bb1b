"""What a report says to do follows from the runs, and says where they do not decide."""

from dataclasses import replace

import pytest

from loopscale.study import judged
from loopscale.study.report import advice
from loopscale.study.topics import audit


def answers(results):
    return {point.question: point for point in advice(judged(results)).points}


def with_losses(results, condition, *rows):
    """Return results in which each run of a condition, by seed, has these losses of its exits."""
    old = results.conditions[condition]
    runs = tuple(replace(run, cross_entropy=row) for run, row in zip(old.runs, rows, strict=True))
    return replace(results, conditions={**results.conditions, condition: replace(old, runs=runs)})


def test_it_names_the_control_its_cost_and_its_exit(measured_study):
    found = advice(judged(measured_study()))
    points = {point.question: point.answer for point in found.points}
    assert found.headline.startswith("Use per_loop-final_rmsnorm: it controls the scale")
    assert points["Is the scale controlled?"].startswith("Not in terminal-rmsnorm, per_loop-rmsnorm: no loss sees it")
    assert "lowest perplexity of those that control the scale, 6.686 at exit 4" in points["Which control?"]
    assert points["Which exit?"].startswith("Exit 4 of 4 in per_loop-final_rmsnorm")
    assert (
        "0.905 times the perplexity of per_loop-rmsnorm (one seed), each at its best exit: "
        in points["What does it cost?"]
    )


@pytest.mark.parametrize(
    ("rows", "word", "is_open"),
    [
        (((1.5,) * 4, (1.51,) * 4, (1.49,) * 4), "better", False),
        (((1.99,) * 4, (2.2,) * 4, (1.9,) * 4), "not decided", True),
        (((2.5,) * 4, (2.51,) * 4, (2.52,) * 4), "worse", False),
    ],
)
def test_a_cost_is_told_by_its_interval(measured_study, rows, word, is_open):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1, 2, 3))
    results = with_losses(results, "per_loop-rmsnorm", *[(2.0,) * 4] * 3)
    point = answers(with_losses(results, "per_loop-raw", *rows))["What does it cost?"]
    assert point.answer.endswith(f"times the perplexity of per_loop-rmsnorm, each at its best exit: {word}.")
    assert point.open == is_open
    headline = advice(judged(with_losses(results, "per_loop-raw", *rows))).headline
    assert headline.startswith("No control of the scale is free here" if word == "worse" else "Use per_loop-raw")
    assert {"better": "lower", "worse": "times the perplexity of per_loop-rmsnorm", "not decided": word}[
        word
    ] in headline


def test_a_cost_is_over_the_best_blind_model_each_at_its_best_exit(measured_study):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw", "terminal-rmsnorm"), seeds=(1,))
    terminal = results.conditions["terminal-rmsnorm"]
    other = replace(terminal, model=results.conditions["per_loop-rmsnorm"].model)  # blind too, and fit at every exit
    results = replace(results, conditions={**results.conditions, "terminal-rmsnorm": other})
    for name, losses in (("per_loop-rmsnorm", (2.0,) * 4), ("terminal-rmsnorm", (1.5, 1.5, 1.5, 2.5))):
        results = with_losses(results, name, losses)
    found = answers(with_losses(results, "per_loop-raw", (1.4,) * 4))
    assert "0.905 times the perplexity of terminal-rmsnorm (one seed)" in found["What does it cost?"].answer


def test_a_rate_of_which_a_later_seed_diverged_is_not_the_best(measured_study, diverge):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1, 2))
    blind, raw = (results.conditions[name] for name in results.conditions)
    runs = diverge(results, "per_loop-rmsnorm").runs("per_loop-rmsnorm")
    lost = replace(next(run for run in runs if run.diverged), seed=2)
    at = {
        "per_loop-rmsnorm@0.001": replace(blind, runs=blind.runs[:1]),
        "per_loop-rmsnorm@0.004": replace(blind, runs=(replace(blind.runs[0], cross_entropy=(1.0,) * 4), lost)),
    }
    alone = advice(judged(replace(results, conditions=at)))
    assert alone.headline.startswith("No condition controls the scale of the state: per_loop-rmsnorm@0.001")
    both = advice(judged(replace(results, conditions={**at, "per_loop-raw@0.001": raw})))
    assert both.headline.startswith(
        "Use per_loop-raw@0.001: it controls the scale of the state, which per_loop-rmsnorm@0.001"
    )


def test_without_a_seed_in_common_no_cost_is_told(measured_study):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1, 2))
    halves = {
        name: replace(condition, runs=condition.runs[i : i + 1])
        for i, (name, condition) in enumerate(results.conditions.items())
    }
    found = advice(judged(replace(results, conditions=halves)))
    assert found.headline.endswith("what it costs is not known, since they have no seed in common.")
    assert not any(point.question == "What does it cost?" for point in found.points)


def test_rivals_that_the_seeds_do_not_tell_apart_are_named(measured_study):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw", "per_loop-rmsnorm-penalty"))
    assert "Against per_loop-raw it is not decided." in answers(results)["Which control?"].answer


def test_without_a_control_without_an_audit_and_without_runs(measured_study, study, diverge):
    blind = advice(judged(measured_study(conditions=("per_loop-rmsnorm", "terminal-rmsnorm"))))
    assert blind.headline.startswith("No condition controls the scale")
    safe = advice(judged(measured_study(conditions=("per_loop-raw",))))
    assert "controlled in every condition that was audited; use per_loop-raw" in safe.headline
    assert "was not measured" in advice(judged(study(conditions=("per_loop-raw",)))).headline
    assert advice(study(conditions=())) is None
    assert advice(diverge(study(conditions=("per_loop-raw",)), "per_loop-raw")) is None


def test_one_audit_that_failed_leaves_its_condition_out(measured_study, with_record):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw", "per_loop-rmsnorm-penalty"))
    results = with_record(results, "per_loop-raw", audit.TOPIC, lambda record: None)
    assert advice(judged(results)).headline.startswith("Use per_loop-rmsnorm-penalty")


def test_each_condition_is_advised_at_the_best_of_its_rates(measured_study):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1,))
    blind, raw = (results.conditions[name] for name in results.conditions)
    at = {"per_loop-rmsnorm@0.004": blind, "per_loop-raw@0.001": raw, "per_loop-raw@0.004": raw}
    results = replace(results, conditions=at)
    results = with_losses(with_losses(results, "per_loop-rmsnorm@0.004", (2.0,) * 4), "per_loop-raw@0.001", (1.5,) * 4)
    far = replace(blind.runs[0], norm=(9.0, 99.0, 999.0, 9999.0), cross_entropy=(2.5,) * 4)
    wild = {**results.conditions, "per_loop-rmsnorm@0.01": replace(blind, runs=(far,))}
    found = advice(judged(replace(results, conditions=wild)))
    points = {point.question: point.answer for point in found.points}
    assert found.headline.startswith(
        "Use per_loop-raw@0.001: it controls the scale of the state, which per_loop-rmsnorm@0.004"
    )
    assert "raw@0.004" not in "".join(points.values())
    assert points["Is the scale controlled?"].startswith("Not in per_loop-rmsnorm@0.004: ")
    assert "(to 9,999 in per_loop-rmsnorm@0.01)" in points["Is the scale controlled?"]
