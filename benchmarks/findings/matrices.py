"""Studies side by side: a row per way, per claim or per study, a column per study, each cell a link to its table."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from benchmarks.findings.study import Study
from loopscale.display import mean_and_spread, number
from loopscale.study import Run
from loopscale.study.best_rates import best_names, searched
from loopscale.study.cells import BETTER, WORSE, decided, ratio_over_seeds
from loopscale.study.grid import SCALE_CONTROL
from loopscale.study.topics import exits, halting, looping, rates, worth
from loopscale.study.topics.audit import scale_verdict
from loopscale.study.topics.training import norm_by_step
from loopscale.study.topics.ways import ranking

VERDICTS = ("holds", "does not hold", "undecided")
NONE = "–"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: bool = True) -> str:
    """Return a Markdown table, its first column in words and the others of numbers."""
    lines = [head, ["---", *("---:" if numeric else "---" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ways_beside(studies: Sequence[Study]) -> str:
    """Return what every way's last exit is over the blind model's, each at its best rate; a column per study."""
    found = [ranking.entries(study.results) for study in studies]
    rows = []
    for name in SCALE_CONTROL:
        if name != ranking.BLIND and any(name in entries for entries in found):
            cells = [_over(study, entries, name) for study, entries in zip(studies, found, strict=True)]
            rows.append([name, *cells])
    return markdown(["way", *(study.name for study in studies)], rows)


def decided_ways(*studies: Study) -> str:
    """Return what the ways that the seeds decide in one of some studies have over none in each, and if they are blind.

    Sorted by the first study; the others are named below.
    """
    ways = [name for name in SCALE_CONTROL if name != ranking.BLIND]
    found = [ranking.entries(study.results) for study in studies]
    ratios = {name: [ranking.over_blind(entries, name) for entries in found] for name in ways}
    told = [name for name in ways if {decided(values) for values in ratios[name]} & {BETTER, WORSE}]
    rows = []
    for name in sorted(told, key=lambda name: fmean(ratios[name][0])):
        scale = dict.fromkeys("blind" if study.is_blind(name) else "not blind" for study in studies)
        rows.append([f"`{name}`", " / ".join(scale), *(study.over_none(name) for study in studies)])
    rest = ", ".join(f"`{name}`" for name in ways if name not in told)
    table = markdown(["way", "scale", *(study.otherwise or "fixed depth" for study in studies)], rows)
    return f"{table}\n\nNot decided in either: {rest}."


def _over(study: Study, entries: dict[str, ranking.Entry], name: str) -> str:
    if name not in entries:
        return NONE
    entry = entries[name]
    rate = "" if entry.rate is None or len(entry.tried) < 2 else f" at {entry.rate:g}"
    ratio = ratio_over_seeds(ranking.over_blind(entries, name))
    return f"{study.link(ratio or 'diverged', 'control')}{rate}"


def prices(studies: Sequence[Study]) -> str:
    """Return what the highest learning rate costs, by what the loss sees of the scale; a row per study."""
    rows = [
        [study.name, study.recipe.init, study.recipe.rates, *(study.price(verdict) for verdict in rates.VERDICTS)]
        for study in studies
    ]
    return markdown(["study", "init", "rates", *(f"scale is {words}" for words in rates.VERDICTS.values())], rows)


def claims_beside(studies: Sequence[Study]) -> str:
    """Return where every claim that some study tests holds, where not, and where it is undecided, with its values."""
    tested = {id: claim.statement for study in studies for id, claim in study.claims.items() if claim.n}
    rows = [
        [f"`{id}`: {words}", *(_with_verdict(studies, id, verdict) for verdict in VERDICTS)]
        for id, words in tested.items()
    ]
    return markdown(["claim", *VERDICTS], rows, numeric=False)


def _with_verdict(studies: Sequence[Study], id: str, verdict: str) -> str:
    found = [study for study in studies if study.claims[id].verdict == verdict]
    return ", ".join(f"{study.name} {study.link(study.value(id), 'claims')}" for study in found) or NONE


def claims_counted(studies: Sequence[Study]) -> str:
    """Return in how many studies every claim of the paper that some test holds, does not, and is undecided."""
    every = [claim for study in studies for claim in study.claims.values()]
    tested = {claim.id: claim.statement for claim in every if claim.n and claim.published}
    rows = []
    for id, words in tested.items():
        counts = Counter[str](study.claims[id].verdict for study in studies)
        rows.append([words, *(str(counts[verdict] or NONE) for verdict in VERDICTS)])
    rows.sort(key=lambda row: sum(map(str.isdigit, row[1:])) == 1 and row[1] != NONE, reverse=True)
    return markdown(["claim", *VERDICTS], rows)


def path_of_norm(study: Study) -> str:
    """Return the greatest norm of the blind model over training, near which step, and the last; means over seeds."""
    curves = [norm_by_step(run) for run in study.results.runs(exits.PLAIN)]
    largest, last = (mean_and_spread([end(curve) for curve in curves]) for end in (_largest, _last))
    step = fmean(max(curve, key=curve.__getitem__) for curve in curves)
    return study.link(f"{largest} near step {step:,.0f}, {last} at the end", "norm-growth")


def _largest(curve: dict[int, float]) -> float:
    return max(curve.values())


def _last(curve: dict[int, float]) -> float:
    return curve[max(curve)]


def remedies_beside(studies: Sequence[Study]) -> str:
    """Return what each of the paper's controls costs at the last exit, relative to the blind model, at one rate."""
    rows = []
    for study in studies:
        costs = [worth.remedy_cost(study.results, name) for name in worth.REMEDIES]
        if any(costs):
            rows.append([study.name, *(study.link(cost, "table-1") if cost else NONE for cost in costs)])
    return markdown(["study", *worth.REMEDIES], rows)


def remedies_at_best(studies: Sequence[Study]) -> str:
    """Return what each of the paper's controls costs where several rates were tried, each model at its best one."""
    some = [study for study in studies if len(study.tried(exits.PLAIN)) > 1]
    names = [name for name in worth.REMEDIES if any(study.tried(name) for study in some)]
    rows = []
    for study in some:
        blind = f"{study.at_best(exits.PLAIN)} {study.rate_in_words(exits.PLAIN)}"
        costs = [(name, study.cost_at_best(name)) for name in names]
        cells = [f"{cost} {study.rate_in_words(name)}" if cost else NONE for name, cost in costs]
        rows.append([study.name, study.recipe.init, blind, *cells])
    return markdown(["study", "init", exits.PLAIN, *names], rows)


def paying(studies: Sequence[Study]) -> str:
    """Return in how many models of some studies looping pays."""
    gains = [looping.depth_gain(run) for run in _models(studies)]
    return f"{sum(gain > looping.BAND for gain in gains)} of {len(gains)}"


def fewer_loops(studies: Sequence[Study], verdict: str) -> str:
    """Return in how many models of one verdict on scale a calibrated rule runs fewer loops than the best fixed exit."""
    fewer = [
        halting.best_rule(record) < halting.fixed_exit(run, record)[0]
        for run in _models(studies)
        if scale_verdict(run) == verdict and (record := halting.TOPIC.of(run))
    ]
    return f"{sum(fewer)} of {len(fewer)}"


def _models(studies: Sequence[Study]) -> list[Run]:
    """Return the sound models whose loss looks at every exit; one that stands in two studies counts once."""
    every = (run for study in studies for run in study.trained_at_every_exit if not run.diverged)
    return list({run.cross_entropy: run for run in every}.values())


def loops_beside(studies: Sequence[Study]) -> str:
    """Return in how many models looping pays, and what halting saves there; a row per study."""
    rows = []
    for study in studies:
        runs = _models([study])
        gains = [looping.depth_gain(run) for run in runs]
        records = [(halting.fixed_exit(run, record)[0], record) for run in runs if (record := halting.TOPIC.of(run))]
        fewer = sum(halting.best_rule(record) < loops for loops, record in records)
        rows.append(
            [
                study.name,
                study.link(paying([study]), "looping"),
                study.link(f"{number(min(gains))} to {number(max(gains))}", "looping"),
                study.link(number(fmean(loops for loops, _ in records), 3), "halting-scale"),
                study.link(number(fmean(halting.best_rule(record) for _, record in records), 3), "halting-scale"),
                study.link(f"{fewer} of {len(records)}", "halting"),
            ]
        )
    head = [
        "study",
        "looping pays in",
        "depth gain",
        "best fixed exit",
        "best rule (loops)",
        "rule runs fewer loops in",
    ]
    return markdown(head, rows)


def norms_over_training(studies: Sequence[Study]) -> str:
    """Return how the final norm of the blind model goes over training, and where it ends under each control."""
    rows = []
    for study in studies:
        own = best_names(study.results) if searched(study.results) else {}
        known = {condition: cells for condition, *cells in study.rows("norm-growth")}
        blind, *others = (known.get(own.get(name, name)) for name in (exits.PLAIN, *worth.REMEDIES))
        if blind:
            ends = [cells[-1] if cells else NONE for cells in others]
            rows.append([study.link(study.name, "norm-growth"), study.recipe.init, *blind, *ends])
    head = ["study", "init", "first", "largest", "at step", "last", *(f"{name}, last" for name in worth.REMEDIES)]
    return markdown(head, rows)
