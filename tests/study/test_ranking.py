import math
from dataclasses import replace

from loopscale.study.topics.ways import ranking
from tests.study.conftest import RUNS


def rows_of(table):
    headings = [column.heading for column in table.columns]
    return {row[0]: dict(zip(headings, row, strict=True)) for row in table.rows}


def test_every_way_counts_at_its_best_rate(ways):
    found = ranking.entries(ways())
    assert {name: (entry.rate, len(entry.tried)) for name, entry in found.items()} == {
        "none": (0.003, 2),
        "raw": (0.003, 1),
        "inter_loop_norm": (0.001, 1),
    }
    rows = rows_of(ranking.control(ways()))
    assert [rows[name]["rate"] for name in found] == ["0.003 (highest)", "0.003", "0.001"]
    assert [rows[name]["rank"] for name in ("raw", "none", "inter_loop_norm")] == [
        "1.00 [1 to 1]",
        "2.00 [2 to 2]",
        "3.00 [3 to 3]",
    ]
    assert rows["none"]["scale"] == "blind spot" and rows["none"]["dynamics"] == "drifting"
    assert rows["none"]["norm 64"] != "–" and rows["none"]["seeds"] == "3"
    assert {name: row["over none"] for name, row in rows.items()} == {
        "none": "1",
        "raw": "0.9048 [0.905, 0.905] (better)",
        "inter_loop_norm": "1.221 [1.22, 1.22] (worse)",
    }
    assert (rows["none"]["highest rate"], rows["raw"]["highest rate"]) == ("1.00×", "–")


def test_costs_hold_the_stated_verdict_against_the_measured_one(ways):
    rows = rows_of(ranking.control_costs(ways()))
    assert rows["none"]["step time"].startswith("1.000")
    assert {name: (row["stated"], row["agrees"]) for name, row in rows.items()} == {
        "none": ("blind spot", "yes"),
        "raw": ("visible", "yes"),
        "inter_loop_norm": ("removed", "yes"),
    }
    swapped = {**RUNS, ("raw", 0.003): ("per_loop-rmsnorm", 1.9)}
    assert rows_of(ranking.control_costs(ways(runs=swapped)))["raw"]["agrees"] == "no"


def test_whether_the_verdict_predicts_harm_is_said(ways):
    assert ranking.verdict_harm(ways()) == (0.5, 1, 2)  # the blind one is worse than one of two
    said = ranking.ranking_sentence(ways())
    assert "best first, is raw (0.905), none (1.00), inter_loop_norm (1.22)" in said and "in 50% of pairs" in said
    only = {key: value for key, value in RUNS.items() if key[0] == "none"}
    assert ranking.control(ways(runs=only)) is None and ranking.ranking_sentence(ways(runs=only)) is None


def test_a_way_that_diverged_in_one_seed_is_not_told_by_the_others(ways):
    results = ways()
    raw = results.conditions["raw@0.003"]
    lost = replace(raw.runs[0], cross_entropy=(math.nan,) * 4)
    broken = replace(results, conditions={**results.conditions, "raw@0.003": replace(raw, runs=(lost, *raw.runs[1:]))})
    assert rows_of(ranking.control(broken))["raw"]["over none"] == "–"
    assert "raw (diverged)" in ranking.ranking_sentence(broken)
