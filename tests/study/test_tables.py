import io
from dataclasses import replace

import pytest
from rich.console import Console

from loopscale.display import to_html, to_markdown
from loopscale.study import TOPICS, judged
from loopscale.study.report import claims_table, sentences
from loopscale.study.results import Failed
from loopscale.study.topics import audit, depth, exits, growth, halting, norms

TABLES = [*(build for topic in TOPICS for build in topic.tables), claims_table]


def printed(table, width):
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


def test_table_one_has_a_row_per_condition_and_a_column_per_exit(study):
    table = exits.exits(study())
    assert [column.heading for column in table.columns][1:5] == ["exit 1", "exit 2", "exit 3", "exit 4"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["terminal-rmsnorm"] == ("8,103", "1,097", "54.60", "7.389", "370.0", "1")
    assert len(rows) == 8 and "One seed." in table.caption


def test_several_seeds_show_mean_and_spread(study):
    row = dict(zip(("name", "l1", "l2", "l3", "l4", "seeds"), norms.norms(study(seeds=(1, 2, 3))).rows[0], strict=True))
    assert row["l1"] == "110.0 ± 10.0" and row["seeds"] == "3"


def test_a_diverged_run_is_named_in_its_row(study, diverge):
    rows = {row[0]: row[1:] for row in exits.exits(diverge(study(), "per_loop-raw")).rows}
    assert rows["per_loop-raw"] == ("not finite",) * 5 + ("1 (1 diverged)",)
    rows = {row[0]: row[1:] for row in exits.exits(diverge(study(seeds=(1, 2)), "per_loop-raw", seed=2)).rows}
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


def test_tables_without_data_are_left_out(study):
    unjudged = study(conditions=("terminal-raw",))
    assert {table.name for table in filter(None, (build(unjudged) for build in TABLES))} == {
        "table-1",
        "norms",
        "looping",
    }


def test_names_and_verdicts_are_whole_in_a_narrow_terminal(study):
    results = judged(study(seeds=(1, 2, 3)))
    for build in (exits.exits, norms.norms, claims_table, exits.beside_the_paper):
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


def test_the_audit_names_verdicts_and_the_losses_that_see(measured_study, with_record):
    results = measured_study(seeds=(1, 2))
    rows = {row["condition"]: row for row in rows_of("audit", results)}
    assert rows["per_loop-rmsnorm"]["scale"] == "blind spot"
    assert rows["per_loop-rmsnorm-penalty"]["scale"] == "visible (norm penalty)"
    assert rows["per_loop-rmsnorm-normed"]["scale"] == "removed"
    assert rows["per_loop-raw"]["scale"] == "visible (cross-entropy)"
    assert float(rows["per_loop-rmsnorm"]["visibility, exit 1"].split(" ±")[0]) < 1e-3
    (line,) = [sentence for sentence in sentences(results) if sentence.startswith("The audit")]
    assert line.startswith("The audit: scale is a blind spot in terminal-rmsnorm, per_loop-rmsnorm; visible in ")
    mixed = measured_study().conditions["per_loop-rmsnorm"].runs
    other = with_record(
        measured_study(seeds=(2,)),
        "per_loop-rmsnorm",
        audit.TOPIC,
        lambda r: replace(r, verdicts={**r.verdicts, "scale": "visible"}),
    )
    both = (*mixed, *other.conditions["per_loop-rmsnorm"].runs)
    old = results.conditions["per_loop-rmsnorm"]
    results = replace(results, conditions={"per_loop-rmsnorm": replace(old, runs=both)})
    assert rows_of("audit", results)[0]["scale"] == "blind spot (1 of 2), visible (1 of 2)"


def test_every_exit_has_its_worth_and_cost_under_each_reading(measured_study, records):
    rows = rows_of("depth", measured_study(conditions=("per_loop-raw", "per_loop-final_rmsnorm")))
    assert [row["condition"] for row in rows[::4]] == [
        "per_loop-raw",
        "per_loop-final_rmsnorm",
        "per_loop-final_rmsnorm, final",
    ]
    second = records["per_loop-raw"]["depth"]["trained"].exits[1]
    assert rows[1]["exit"] == "2" and float(rows[1]["MFLOPs"]) == pytest.approx(second.flops / 1e6, rel=1e-3)
    assert float(rows[1]["perplexity"].replace(",", "")) == pytest.approx(second.perplexity, rel=1e-2)


def test_halting_shows_the_timed_rule_and_says_where_none_keeps_the_target(measured_study, with_record, records):
    results, record = measured_study(conditions=("per_loop-rmsnorm",)), records["per_loop-rmsnorm"]["halting"]
    fixed, best = record.results[0], record.results[1]
    loops = round(fixed.executed_loops.value)
    base = replace(record.times[0], time_saving=0.3)
    timed = replace(base, rule=best.rule, executed_loops=loops / 2, time_saving_over_fixed=0.4)
    shown = with_record(results, "per_loop-rmsnorm", halting.TOPIC, lambda record: replace(record, times=(base, timed)))
    rows = {row.pop("per"): row for row in rows_of("halting", shown)}
    first = rows.pop("any")
    assert (first["rule"], first["time saved"]) == (f"exit {loops}, fixed", "30%")
    row = rows[best.rule.level]
    assert row["rule"].startswith(best.rule.rule) and (row["loops saved"], row["time saved"]) == ("50%", "40%")
    assert row["relative perplexity"].startswith(f"{best.relative_perplexity.value:.4f} [")
    (other,) = (row for level, row in rows.items() if level != best.rule.level)
    assert other["rule"] == "none keeps it"


def test_halting_is_told_for_blind_and_controlled_models(measured_study, records):
    results = measured_study(conditions=("per_loop-rmsnorm", "per_loop-raw"), seeds=(1, 2))
    rows = {row["scale"]: row for row in rows_of("halting-scale", results)}
    assert {scale: row["models"] for scale, row in rows.items()} == {"blind spot": "2", "visible": "2"}
    record = records["per_loop-raw"]["halting"]
    assert rows["visible"]["best rule"] == f"{halting.best_rule(record):.2f}"
    assert halting.best_rule(replace(record, times=())) == record.num_loops  # where no rule keeps the target


def test_a_fixed_exit_of_an_older_study_is_read_off_its_depth_curve(measured_study, with_record, records):
    record = records["per_loop-rmsnorm"]["halting"]
    older = replace(record, results=record.results[1:], times=())
    results = with_record(measured_study(), "per_loop-rmsnorm", halting.TOPIC, lambda record: older)
    (run,) = results.runs("per_loop-rmsnorm")
    assert halting.fixed_exit(run, older) == (2, 1.0)  # its losses are 2.1, 2, 2, 2
    flat = replace(run, cross_entropy=(2.005, 2.0, 2.0, 2.0))
    assert halting.fixed_exit(flat, older)[0] == 1


def test_token_norms_and_safe_depths_are_shown(measured_study, records):
    results = measured_study(conditions=("per_loop-rmsnorm",), seeds=(1, 2))
    assert rows_of("norm-distribution", results)[0]["largest / median"].endswith("± 0.000")
    safe, found = rows_of("safe-range", results), records["per_loop-rmsnorm"]["depth"]["trained"].safe_range
    assert [row["condition"] for row in safe] == ["per_loop-rmsnorm, seed 1", "per_loop-rmsnorm, seed 2"]
    assert safe[0]["safe exits"] == f"{found.first} to {found.last}"


def test_a_measurement_that_failed_is_a_dash(measured_study, with_record):
    results = measured_study(conditions=("per_loop-raw", "per_loop-rmsnorm"))
    for topic in (audit.TOPIC, depth.TOPIC, halting.TOPIC):
        results = with_record(results, "per_loop-raw", topic, lambda record: Failed("no state is finite."))
    (row,) = (row for row in rows_of("audit", results) if row["condition"] == "per_loop-raw")
    assert set(row.values()) == {"per_loop-raw", "–"}
    assert {row["condition"] for row in rows_of("depth", results)} == {"per_loop-rmsnorm"}
    assert growth.last_retention(results.runs("per_loop-raw")[0]) is None


@pytest.mark.parametrize("name", ["[/]", "<script>x</script>", "a\nb", "\x1b[2J", "a|b", "$x_{", "_x"])
def test_a_condition_of_any_name_is_inert(measured_study, name):
    results = measured_study(conditions=("per_loop-rmsnorm",))
    results = judged(replace(results, conditions={name: results.conditions["per_loop-rmsnorm"]}))
    for table in filter(None, (build(results) for build in TABLES)):
        lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
        assert len(lines) == len(table.rows) + 2 and "<script" not in to_html(table)
        assert "\x1b[2J" not in printed(table, 200)
