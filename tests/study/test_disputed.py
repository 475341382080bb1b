from dataclasses import replace

import pytest

from loopscale.study.topics.ways import disputed
from loopscale.study.topics.ways.control import TOPIC as CONTROL


def cell(table, row, heading):
    return dict(zip([column.heading for column in table.columns], table.rows[row], strict=True))[heading]


def test_the_norm_is_worth_a_difference_with_an_interval_over_the_seeds_that_both_have(ways):
    table = disputed.inter_loop_norm(ways())
    assert cell(table, 0, "condition") == "inter_loop_norm over none" and cell(table, 0, "seeds") == "3"
    assert cell(table, 0, "exit 4") == "+0.200 [+0.200, +0.200]"
    assert cell(disputed.inter_loop_norm(ways(seeds=(1,))), 0, "exit 4") == "+0.200"


def test_far_exits_are_those_of_the_records(ways):
    results = ways(seeds=(1,))
    (effect,) = disputed.norm_effects(results)
    far = {
        name: {p.exit: p.cross_entropy for p in CONTROL.of(results.runs(name)[0]).far}
        for name in ("inter_loop_norm@0.001", "none@0.003")
    }
    assert effect.nats[64] == pytest.approx((far["inter_loop_norm@0.001"][64] - far["none@0.003"][64],))


def test_the_papers_grid_has_its_own_pair_and_a_study_without_one_no_table(study):
    results = study(seeds=(1, 2))
    (effect,) = disputed.norm_effects(results)
    assert (effect.without, effect.with_norm) == ("per_loop-rmsnorm", "per_loop-rmsnorm-normed")
    assert sorted(effect.nats) == [1, 2, 3, 4] and effect.seeds == 2
    assert disputed.inter_loop_norm(study(conditions=("per_loop-rmsnorm",))) is None


def test_a_diverged_run_counts_on_neither_side(study):
    results = study(seeds=(1, 2))
    normed = results.conditions["per_loop-rmsnorm-normed"]
    lost = replace(normed.runs[0], measured={"diverged": "step 3: the loss"})
    results = replace(
        results,
        conditions={**results.conditions, "per_loop-rmsnorm-normed": replace(normed, runs=(lost, normed.runs[1]))},
    )
    (effect,) = disputed.norm_effects(results)
    assert effect.seeds == 1
