import io
from dataclasses import replace

from rich.console import Console

from loopscale.study.audit_tables import verdict_line
from loopscale.study.claims import judged
from loopscale.study.table import Column, Table, to_markdown, to_rich
from loopscale.study.tables import TABLES, beside_the_paper, claims, exits, norms


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(to_rich(table, width))
    return console.file.getvalue()


def test_table_one_has_a_row_per_condition_and_a_column_per_exit(study):
    table = exits(study())
    assert [column.heading for column in table.columns][1:5] == ["exit 1", "exit 2", "exit 3", "exit 4"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["terminal-rmsnorm"] == ("8,103", "1,097", "54.60", "7.389", "370.0", "1")
    assert len(rows) == 8 and "One seed." in table.caption


def test_several_seeds_show_mean_and_spread(study):
    row = dict(zip(("name", "l1", "l2", "l3", "l4", "seeds"), norms(study(seeds=(1, 2, 3))).rows[0], strict=True))
    assert row["l1"] == "110.0 ± 10.0" and row["seeds"] == "3"


def test_a_diverged_run_is_named_in_its_row(study, diverge):
    rows = {row[0]: row[1:] for row in exits(diverge(study(), "per_loop-raw")).rows}
    assert rows["per_loop-raw"] == ("not finite",) * 5 + ("1 (1 diverged)",)
    rows = {row[0]: row[1:] for row in exits(diverge(study(seeds=(1, 2)), "per_loop-raw", seed=2)).rows}
    assert rows["per_loop-raw"][0] == "9.974 (1 of 2 not finite)" and rows["per_loop-raw"][-1] == "2 (1 diverged)"


def test_every_table_is_whole_markdown(study, measured_study, diverge):
    for results in (
        measured_study(seeds=(1, 2)),
        diverge(measured_study(), "terminal-raw"),
        study(),
        diverge(study(seeds=(1, 2)), "terminal-raw"),
        study(conditions=("per_loop-raw",)),
    ):
        for table in filter(None, (build(judged(results)) for build in TABLES)):
            lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
            assert len(lines) == len(table.rows) + 2
            assert {line.count("|") for line in lines} == {len(table.columns) + 1}


def test_a_bar_in_a_cell_does_not_split_it():
    table = Table("t", "T", "c", (Column("a"), Column("b", numeric=True)), (("x|y", "1"),))
    assert to_markdown(table).splitlines()[-3:] == ["| a | b |", "| --- | ---: |", "| x\\|y | 1 |"]


def test_tables_without_data_are_left_out(study):
    unjudged = study(conditions=("terminal-raw",))
    assert [table.name for table in filter(None, (build(unjudged) for build in TABLES))] == [
        "table-1",
        "norms",
    ]


def test_names_and_verdicts_are_whole_in_a_narrow_terminal(study):
    results = judged(study(seeds=(1, 2, 3)))
    for build in (exits, norms, claims, beside_the_paper):
        table = build(results)
        text = printed(table, 80)
        assert max(map(len, text.splitlines())) <= 80
        assert all(row[0] in text and row[-1] in text for row in table.rows)


def test_statements_are_shown_where_there_is_room(study):
    table = next(table for table in (build(judged(study())) for build in TABLES) if table and table.name == "claims")
    assert "statement" in printed(table, 160) and "statement" not in printed(table, 100)


def rows_of(name, results):
    table = next(table for build in TABLES if (table := build(results)) and table.name == name)
    return [dict(zip((column.heading for column in table.columns), row, strict=True)) for row in table.rows]


def test_the_audit_names_verdicts_and_the_losses_that_see(measured_study, with_extra):
    results = measured_study(seeds=(1, 2))
    rows = {row["condition"]: row for row in rows_of("audit", results)}
    assert rows["per_loop-rmsnorm"]["scale"] == "blind spot"
    assert rows["per_loop-rmsnorm-penalty"]["scale"] == "visible (penalty)"
    assert rows["per_loop-rmsnorm-normed"]["scale"] == "removed"
    assert rows["per_loop-raw"]["scale"] == "visible (cross-entropy)"
    assert rows["per_loop-rmsnorm"]["visibility, exit 1"].startswith("1.00e-9")
    assert verdict_line(results).startswith("Scale is a blind spot in terminal-rmsnorm, per_loop-rmsnorm; visible in ")
    mixed = measured_study().conditions["per_loop-rmsnorm"].runs
    other = with_extra(measured_study(seeds=(2,)), "per_loop-rmsnorm", ["audit", "verdicts", "scale"], "visible")
    both = (*mixed, *other.conditions["per_loop-rmsnorm"].runs)
    old = results.conditions["per_loop-rmsnorm"]
    results = replace(results, conditions={"per_loop-rmsnorm": replace(old, runs=both)})
    assert rows_of("audit", results)[0]["scale"] == "blind spot (1 of 2), visible (1 of 2)"


def test_every_exit_has_its_worth_and_cost_under_each_reading(measured_study):
    rows = rows_of("depth", measured_study(conditions=("per_loop-raw", "per_loop-final_rmsnorm")))
    assert [row["condition"] for row in rows[::4]] == [
        "per_loop-raw",
        "per_loop-final_rmsnorm",
        "per_loop-final_rmsnorm, final",
    ]
    assert (rows[1]["exit"], rows[1]["MFLOPs"], rows[1]["tokens/s"]) == ("2", "2.000", "500.0")


def test_halting_shows_the_timed_rule_and_says_where_none_keeps_the_target(measured_study):
    sequence, token = rows_of("halting", measured_study(conditions=("per_loop-raw",)))
    assert (sequence["rule"], sequence["loops saved"], sequence["time saved"]) == ("entropy", "50%", "40%")
    assert sequence["relative perplexity"] == "1.0050 [1.0010, 1.0090]"
    assert (token["per"], token["rule"], token["oracle"]) == ("token", "none keeps it", "1.500")


def test_token_norms_and_safe_depths_are_shown(measured_study):
    results = measured_study(conditions=("per_loop-raw",), seeds=(1, 2))
    assert rows_of("norm-distribution", results)[0]["largest / median"].startswith("3.333")
    safe = rows_of("safe-range", results)
    assert [row["condition"] for row in safe] == ["per_loop-raw, seed 1", "per_loop-raw, seed 2"]
    assert (safe[0]["safe exits"], safe[0]["turns up at"]) == ("2 to 5", "6")
