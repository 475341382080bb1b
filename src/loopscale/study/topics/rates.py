"""Learning rates: what each condition reaches at each of its rates, so that none wins by the one rate of a study."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from loopscale.display import Axis, Chart, Column, Panel, Series, Table, mean_and_spread, number, readable_top

from ..best_rates import best_names, names_by_condition, usual_rate
from ..cells import agreed, count_of, seeds_said
from ..grid import condition_styles, split_rate
from ..results import ConditionResult, Results, Run
from ..topic import TIMES, Drawing, Topic, ratio_of_perplexities
from .audit import scale_verdict

FAR = 4.0  # times the lowest perplexities, one leaves the picture
VERDICTS = {"blind_spot": "a blind spot", "visible": "visible", "removed": "removed"}  # in words

AtRates = Mapping[float, str]  # names of what was trained at each rate, in their order


def rates_tried(results: Results) -> dict[str, AtRates]:
    """Return the learning rates of every condition, with what the study calls it at each of them."""
    usual = usual_rate(results)
    return {
        condition: dict(sorted((usual if name == condition else split_rate(name)[1] or usual, name) for name in names))
        for condition, names in names_by_condition(results).items()
    }


def conditions_at_rates(results: Results) -> dict[str, AtRates]:
    """Return the conditions that were trained at several learning rates, with what the study calls each of them."""
    return {condition: names for condition, names in rates_tried(results).items() if len(names) > 1}


def best_rate(results: Results, names: AtRates) -> float:
    """Return the rate with which the last exit is best."""
    best = results.best_of(names.values())
    return next(rate for rate, name in names.items() if name == best)


def end_of(rate: float, tried: Collection[float]) -> str:
    """Return which end of several rates the best one is, if any: a better one may lie beyond."""
    ends = {} if len(tried) < 2 else {min(tried): "lowest", max(tried): "highest"}
    return ends.get(rate, "")


def rate_in_words(rate: float, tried: Collection[float]) -> str:
    """Return the best of some rates, and whether it is at an end of them."""
    end = end_of(rate, tried)
    return f"{rate:g}{end and f', the {end} tried'}"


def cost(results: Results, names: AtRates, rate: float) -> float:
    """Return the nats that a rate costs over the best one, mean over the seeds that both have; NaN without any."""
    best = {run.seed: run for run in results.runs(names[best_rate(results, names)])}
    own = [run for run in results.runs(names[rate]) if run.seed in best]
    return _loss(own) - _loss([best[run.seed] for run in own]) if own else math.nan


def at_best_rate(results: Results, condition: str) -> tuple[Run, ...]:
    """Return a condition's runs at the best of its rates; none where it was not trained."""
    return results.runs(best_names(results).get(condition, condition))


def rates(results: Results) -> Table | None:
    """What the learning rate does to every condition: its last exit, its norm, and the cost against its best rate."""
    rows = []
    for stem, names in conditions_at_rates(results).items():
        for rate, name in names.items():
            condition = results.conditions[name]
            over = over_its_best(cost(results, names, rate))
            rows.append(
                (stem, f"{rate:g}", *_exits(results, condition), over, _verdict(condition), count_of(condition.runs))
            )
    if not rows:
        return None
    headings = ("exit 1", f"exit {results.num_loops}", "final norm", "over its best")
    return Table(
        name="rates",
        title="Every condition at several learning rates",
        caption=f"Perplexity, and that of exit {results.num_loops} over the same condition's at its best rate, of the "
        f"seeds that both have. {seeds_said(results)}",
        columns=(
            Column("condition"),
            Column("rate", numeric=True),
            *(Column(heading, numeric=True) for heading in headings),
            Column("scale"),
            Column("seeds"),
        ),
        rows=tuple(rows),
    )


def rates_chart(results: Results) -> Chart | None:
    """Draw the last exit's perplexity against the learning rate, a line per condition, means over seeds."""
    styles, series = condition_styles(results), []
    for stem, names in conditions_at_rates(results).items():
        runs = [results.conditions[name].runs for name in names.values()]
        means = tuple(fmean(math.nan if run.diverged else run.perplexity[-1] for run in own) for own in runs)
        series.append(Series(stem, tuple(names), means, styles[next(iter(names.values()))], marker="o"))
    if not series:
        return None
    y = Axis(f"perplexity of exit {results.num_loops}", end=readable_top([line.y for line in series], FAR))
    return Chart((Panel(Axis("learning rate", log=True), y, tuple(series), across=True),))


def rates_sentence(results: Results) -> str | None:
    """Say what each condition reaches at its best rate, and what the highest of all costs by the verdict on scale."""
    said = []
    for stem, names in conditions_at_rates(results).items():
        best = best_rate(results, names)
        reached = number(fmean(run.perplexity[-1] for run in results.runs(names[best])))
        said.append(f"{reached} in {stem} (at {rate_in_words(best, names)})")
    if not said:
        return None
    costs = cost_of_the_highest_rate(results).items()
    words = ", ".join(f"{spread_in_words(nats)} where scale is {VERDICTS[verdict]}" for verdict, nats in costs)
    said_of_cost = f"; at the highest that all have, over that, it is {words}" if words else ""
    return f"The learning rates: last-exit perplexity at the best of them is {', '.join(said)}{said_of_cost}."


def at_the_highest_rate(results: Results) -> dict[str, str]:
    """Return in words what the highest rate that all conditions of several have costs each over its best one."""
    return {stem: over_its_best(nats) for stem, (_, nats) in _highest_of_all(results).items()}


def cost_of_the_highest_rate(results: Results) -> dict[str, list[float]]:
    """Return what the highest rate costs each condition over its best, in nats, by the audit's verdict on scale there.

    It is the highest that all conditions with several rates have: a rate that only some were tried at compares none.
    A condition counts once its runs agree on the verdict.
    """
    costs: dict[str, list[float]] = {}
    for condition, nats in _highest_of_all(results).values():
        verdicts = {scale_verdict(run) for run in condition.runs}
        if len(verdicts) == 1 and (verdict := verdicts.pop()) in VERDICTS and not math.isnan(nats):
            costs.setdefault(verdict, []).append(nats)
    return {verdict: costs[verdict] for verdict in VERDICTS if verdict in costs}


def _highest_of_all(results: Results) -> dict[str, tuple[ConditionResult, float]]:
    """Return every condition of several rates at the highest that all have, with its cost; none without one."""
    found = conditions_at_rates(results)
    shared = set.intersection(*map(set, found.values())) if found else ()
    return {
        stem: (results.conditions[names[rate]], cost(results, names, rate))
        for rate in sorted(shared)[-1:]
        for stem, names in found.items()
    }


def spread_in_words(nats: Sequence[float]) -> str:
    """Return the least and the greatest of some differences of losses, as ratios of perplexities."""
    return " to ".join(dict.fromkeys((over_its_best(min(nats)), over_its_best(max(nats)))))


def _verdict(condition: ConditionResult) -> str:
    return agreed([(scale_verdict(run) or "–").replace("_", " ") for run in condition.runs])


def over_its_best(nats: float) -> str:
    """Return in words what nats more than at the best rate are as a ratio of perplexities."""
    if math.isnan(nats):
        return "–"
    return f"{number(ratio_of_perplexities(nats), 3)}{TIMES}" if math.isfinite(nats) else "diverged"


def _loss(runs: Sequence[Run]) -> float:
    return fmean(run.loss for run in runs)


def _exits(results: Results, condition: ConditionResult) -> list[str]:
    columns = ([run.perplexity[0], run.perplexity[-1], run.norm[-1]] for run in condition.runs)
    return [mean_and_spread(list(values)) for values in zip(*columns, strict=True)]


TOPIC: Topic[None] = Topic(
    name="rates",
    heading="Table 1",
    place=11,
    tables=(rates,),
    figures=(
        Drawing(
            name="rates",
            title="What the learning rate costs each condition",
            caption="Perplexity of the last exit by learning rate, means over seeds.",
            draw=rates_chart,
        ),
    ),
    sentence=rates_sentence,
)
