import io

from rich.console import Console

from loopscale.study.claims import judged
from loopscale.study.tables import TABLES, Column, Table, exits, norms, to_markdown, to_rich


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


def test_every_table_is_whole_markdown(study, diverge):
    for results in (
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
    for build in TABLES:
        table = build(results)
        text = printed(table, 80)
        assert max(map(len, text.splitlines())) <= 80
        assert all(row[0] in text and row[-1] in text for row in table.rows)


def test_statements_are_shown_where_there_is_room(study):
    table = next(table for table in (build(judged(study())) for build in TABLES) if table.name == "claims")
    assert "statement" in printed(table, 160) and "statement" not in printed(table, 100)
