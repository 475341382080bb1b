"""Tables and figure of halting: rules against the oracle's bound, and what they save by the clock."""

from loopscale.display import (
    GREY,
    Axis,
    Chart,
    Column,
    Panel,
    Rule,
    Series,
    Style,
    Table,
    fresh_styles,
    number,
    percent,
)
from loopscale.display.figure import MARKS
from loopscale.evaluate.statistics import Interval
from loopscale.halting.comparison import HaltingReport


def halting_table(title: str, report: HaltingReport) -> Table:
    """Return what `run_halting` found: the best fixed exit, the oracle's bound, the rules."""
    bounds = (
        (level, "oracle", number(bound.relative_perplexity, 5), number(bound.selected_loops, 3), "", "")
        for level, bound in report.oracle.items()
    )
    fixed, *rows = (
        (
            "any" if row.rule.rule == "fixed_exit" else row.rule.level,
            rule_words(row.rule.rule, row.selected_loops, row.rule.first_exit),
            _interval(row.relative_perplexity),
            number(row.selected_loops.value, 3),
            number(row.executed_loops.value, 3),
            ("kept" if row.kept else "missed") if row.possible else "cannot be met",
        )
        for row in report.results
    )
    return Table(
        name="halting",
        title=f"{title}: {report.target}",
        caption=f"calibrated on {report.calibration_windows} windows, reported on {report.test_windows} others; "
        f"loops of {report.num_loops}; 95% interval; first: the best fixed exit under the target, which a rule is "
        "to beat; the oracle knows the labels",
        columns=(
            Column("level"),
            Column("rule"),
            Column("relative ppl"),
            Column("selected", numeric=True),
            Column("executed", numeric=True),
            Column("target"),
        ),
        rows=(fixed, *bounds, *rows),
    )


def halting_time_table(title: str, report: HaltingReport) -> Table:
    """Return executed loops and wall time of the timed rules at each batch size."""
    rows = (
        (
            row.rule.level,
            row.rule.rule,
            str(row.batch_size),
            number(row.executed_loops, 3),
            percent(row.loop_saving_over_fixed, 1),
            percent(row.time_saving_over_fixed, 1),
            percent(row.time_saving, 1),
            number(row.seconds * 1e3),
            number(row.full_seconds * 1e3),
        )
        for row in report.times
    )
    figures = ("batch", "executed", "loops saved", "time saved", "of full depth", "ms", "full ms")
    return Table(
        name="halting-times",
        title=title,
        caption="saved: over the best fixed exit, and time over full depth; milliseconds per window, with the rule and "
        "at full depth",
        columns=(Column("level"), Column("rule"), *(Column(name, numeric=True) for name in figures)),
        rows=tuple(rows),
    )


def halting_chart(report: HaltingReport) -> Chart:
    """Draw relative perplexity against selected loops for every rule of `run_halting`, and the oracle's bound."""
    panels = []
    styles = fresh_styles({row.rule.rule: (row.rule.rule, "") for row in report.results})
    for level, bound in report.oracle.items():
        oracle = (bound.selected_loops,), (bound.relative_perplexity,)
        series = [Series("oracle (bound)", *oracle, Style(GREY), "*", marks_only=True)]
        series += [
            Series(
                row.rule.rule,
                (row.selected_loops.value,),
                (row.relative_perplexity.value,),
                styles[row.rule.rule],
                MARKS[list(styles).index(row.rule.rule) % len(MARKS)],
                marks_only=True,
                reach_x=((row.selected_loops.low, row.selected_loops.high),),
                reach_y=((row.relative_perplexity.low, row.relative_perplexity.high),),
                notes=(rule_words(row.rule.rule, row.selected_loops, row.rule.first_exit),),
            )
            for row in report.results
            if row.rule.level == level or row.rule.rule == "fixed_exit"
        ]
        x = Axis(f"selected loops per token, stopped by {level}")
        full = Rule("x", report.num_loops, f"full depth {report.num_loops}")
        panels.append(Panel(x, Axis("perplexity / full depth"), tuple(series), (full, Rule("y", 1.0))))
    return Chart(tuple(panels))


def rule_words(name: str, selected: Interval, first_exit: int = 1) -> str:
    """Return a rule's name, with the first exit that it may use, or the only one that it does."""
    exits = {selected.value, selected.low, selected.high}
    if len(exits) == 1 and (only := exits.pop()).is_integer():
        return f"exit {only:.0f}, fixed" if name == "fixed_exit" else f"{name} (always exit {only:.0f})"
    return f"{name} from exit {first_exit}" if first_exit > 1 else name


def _interval(found: Interval) -> str:
    return f"{number(found.value, 5)} [{number(found.low)}, {number(found.high)}]"
