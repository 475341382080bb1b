"""A committed study, as the page of findings asks it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from loopscale.display import Table, mean_and_spread, number, percent, to_markdown
from loopscale.study import TOPICS, Results, Run
from loopscale.study.best_rates import at_best
from loopscale.study.cells import ratio_over_seeds
from loopscale.study.grid import split_rate
from loopscale.study.report import claim_interval, claim_value
from loopscale.study.topics import exits, looping, rates, worth
from loopscale.study.topics.audit import scale_verdict
from loopscale.study.topics.rates import AtRates
from loopscale.study.topics.ways import disputed, ranking


class Recipe(NamedTuple):
    """What makes two studies comparable, in words."""

    preset: str
    text: str
    init: str
    rates: str
    steps: str
    conditions: str
    otherwise: str


class Study:
    """A committed study, as the page asks it: every answer is a link."""

    def __init__(self, folder: Path, results: Results) -> None:
        self.folder, self.name, self.results = folder, folder.name, results
        self.claims = {claim.id: claim for claim in results.claims}

    def link(self, text: str, table: str) -> str:
        """Return the text as a link to one of its tables."""
        return f"[{text}](../results/{self.name}/tables/{table}.md)"

    def figure(self, name: str) -> str:
        """Return the path of one of its figures."""
        return f"../results/{self.name}/figures/{name}.svg"

    @property
    def is_of_ways(self) -> bool:
        """Whether it compares ways to control the scale, and not the conditions of the paper."""
        return bool(ranking.entries(self.results))

    @property
    def rates(self) -> list[float]:
        """Return the learning rates of its runs, in order."""
        usual = float(self.results.config["train"]["learning_rate"])
        own = (split_rate(name)[1] for name, condition in self.results.conditions.items() if condition.runs)
        return sorted({usual if rate is None else rate for rate in own})

    @property
    def recipe(self) -> Recipe:
        """Return what makes two studies comparable."""
        steps = sorted({run.steps for run in self.results.all_runs})
        return Recipe(
            self.results.preset,
            str(self.results.corpus["name"]),
            str(self.results.config["model"].get("init", "torch_default")),
            ", ".join(f"{rate:g}" for rate in self.rates),
            " to ".join(map(str, dict.fromkeys((steps[0], steps[-1])))),
            "ways" if self.is_of_ways else "paper",
            self.otherwise or "–",
        )

    @property
    def otherwise(self) -> str:
        """Return what is unlike the other studies: another optimizer than AdamW, depths that are drawn."""
        train = self.results.config["train"]
        muon = "Muon" if train.get("optimizer") == "muon" else ""
        depth = train.get("depth", "fixed")
        drawn = f"depths {depth['low']} to {depth['high']} drawn" if isinstance(depth, dict) else ""
        return ", ".join(filter(None, (muon, drawn)))

    def at_highest(self, way: str) -> str:
        """Return what the highest learning rate costs a way over its own best one."""
        return self.link(rates.at_the_highest_rate(self.results)[way], "rates")

    def at_lowest(self, condition: str) -> str:
        """Return what the lowest learning rate costs a condition or a way over its own best one."""
        names = rates.rates_tried(self.results)[condition]
        return self.link(rates.over_its_best(rates.cost(self.results, names, min(names))), "rates")

    @property
    def number_of_ways(self) -> int:
        """Return how many ways it compares, none among them."""
        return len(ranking.entries(self.results))

    @property
    def at_an_end(self) -> str:
        """Return how many ways have their best rate at an end of those that were tried."""
        found = ranking.entries(self.results).values()
        ends = [entry for entry in found if entry.rate is not None and rates.end_of(entry.rate, entry.tried)]
        return f"{len(ends)} of {len(found)}"

    def norm_of_way(self, way: str) -> str:
        """Return a way's final norm, at its best rate."""
        runs = ranking.entries(self.results)[way].runs
        return self.link(mean_and_spread([run.norm[-1] for run in runs]), "control")

    def cost_at_rate(self, remedy: str, rate: float) -> str:
        """Return a remedy's last-exit perplexity over the blind model's where both have that rate, means over seeds."""
        ours, theirs = (self.results.runs(self.tried(name)[rate]) for name in (remedy, exits.PLAIN))
        means = [fmean(run.perplexity[-1] for run in runs) for runs in (ours, theirs)]
        return self.link(number(means[0] / means[1], 3), "table-1")

    def is_blind(self, way: str) -> bool:
        """Whether the audit of every run of a way, at its best rate, says that it leaves the blind spot."""
        return all(scale_verdict(run) == "blind_spot" for run in ranking.entries(self.results)[way].runs)

    def at_rate(self, way: str, rate: float) -> str:
        """Return a way's last-exit perplexity at one of its rates, means over seeds."""
        runs = self.results.runs(self.tried(way)[rate])
        return self.link(number(fmean(run.perplexity[-1] for run in runs)), "rates")

    def best_perplexity(self, *names: str) -> str:
        """Return the lowest last exit of some ways (all by default), each at its best rate, means over seeds."""
        found = ranking.entries(self.results)
        means = [fmean(run.perplexity[-1] for run in found[name].runs) for name in names or found]
        return self.link(number(min(means)), "control")

    def what(self) -> list[str]:
        """Return the cells of the table of studies: name, setting, seeds and number of models."""
        seeds = ", ".join(map(str, self.results.seeds))
        link = f"[{self.name}](../results/{self.name})"
        return [link, *self.recipe, seeds, str(len(self.results.all_runs))]

    def price(self, verdict: str) -> str:
        """Return what the highest learning rate costs the conditions of one verdict on scale, least to greatest."""
        nats = rates.cost_of_the_highest_rate(self.results).get(verdict)
        return self.link(rates.spread_in_words(nats), "rates") if nats else "–"

    def over_none(self, way: str) -> str:
        """Return what a way's last exit has over that of none, each at its best rate, with its interval."""
        found = ranking.entries(self.results)
        return self.link(ratio_over_seeds(ranking.over_blind(found, way)) or "not run", "control")

    def harm(self) -> str:
        """Say how often a way that leaves a blind spot has a worse last exit than one that does not."""
        found = ranking.verdict_harm(self.results)
        if found is None:
            return "no blind and controlled ways to compare."
        share, blind, controlled = found
        said = (
            f"worse in {percent(share)} of the pairs of {blind} blind and {controlled} controlled ways (50%: nothing)."
        )
        return self.link(said, "control")

    def effects(self) -> list[list[str]]:
        """Return the rows of the disputed question: what is compared, then exits 1, K, 2K, 4K and 16K, and seeds."""
        K = self.results.num_loops
        return [
            [
                self.link(effect.with_norm, "inter-loop-norm"),
                *(disputed.difference(effect.nats.get(k, ())) for k in (1, K, 2 * K, 4 * K, 16 * K)),
                str(effect.seeds),
            ]
            for effect in disputed.norm_effects(self.results)
        ]

    def tried(self, condition: str) -> AtRates:
        """Return the names of a condition of the paper at each of its learning rates."""
        return rates.rates_tried(self.results).get(condition, {})

    def rate_in_words(self, condition: str) -> str:
        """Return the best rate of a condition of the paper, and whether it is at an end of those that were tried."""
        names = self.tried(condition)
        return f"at {rates.rate_in_words(rates.best_rate(self.results, names), names)}"

    def at_best(self, condition: str, k: int = 0) -> str:
        """Return the perplexity of exit k, the last one for 0, of a condition at the best of its rates."""
        runs = rates.at_best_rate(self.results, condition)
        return self.link(mean_and_spread([run.perplexity[k - 1] for run in runs]), "table-1")

    def cost_at_best(self, remedy: str) -> str | None:
        """Return a remedy's last-exit perplexity over the blind model's, each at its best rate, over common seeds."""
        ratio = worth.remedy_cost(at_best(self.results), remedy)
        return ratio and self.link(ratio, "table-1")

    def claim(self, id: str) -> str:
        """Return a claim's value with its interval and verdict."""
        claim = self.claims[id]
        around = claim_interval(claim) if claim.n > 1 else "(one seed)"
        return self.link(f"{claim_value(claim)} {around}: {claim.verdict}", "claims")

    def over(self, condition: str, figure: Callable[[Run], float], table: str) -> str:
        """Return a figure over the seeds."""
        runs = self.results.runs(condition)
        return self.link(mean_and_spread([figure(run) for run in runs]), table) if runs else "not run"

    def perplexity(self, condition: str, k: int) -> str:
        """Return the perplexity of exit k, the last one for 0."""
        return self.over(condition, lambda run: run.perplexity[k - 1], "table-1")

    def cost(self, remedy: str) -> str:
        """Return a remedy's last-exit perplexity over that of the blind model, with its interval."""
        return self.link(worth.remedy_cost(self.results, remedy) or "not run", "table-1")

    def depth_gain(self, condition: str) -> str:
        """Return exit 1's perplexity over the best exit's, at the best of the condition's rates."""
        gains = [looping.depth_gain(run) for run in rates.at_best_rate(self.results, condition)]
        return self.link(mean_and_spread(gains), "looping")

    def norm(self, condition: str) -> str:
        """Return the final norm."""
        return self.over(condition, lambda run: run.norm[-1], "table-1")

    def losses(self, condition: str) -> str:
        """Return the first and the last training loss that a condition's first run logged."""
        history = self.results.runs(condition)[0].measured["history"]
        first, last = (number(history[i]["loss"]) for i in (0, -1))
        return f"[{first} to {last}]({self.figure('loss-over-training')})"

    @property
    def trained_at_every_exit(self) -> list[Run]:
        """Return the runs whose loss looks at every exit: in others the early ones were never trained."""
        return [
            run
            for condition in self.results.conditions.values()
            if condition.model.get("supervision") != "terminal"
            for run in condition.runs
        ]

    def value(self, id: str) -> str:
        """Return what was measured for a claim."""
        return claim_value(self.claims[id])

    def rows(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Return the rows of one of its tables, none where it has no such table."""
        found = self._table(name)
        return found.rows if found else ()

    def table(self, name: str, *headings: str) -> str:
        """Return one of its tables as Markdown, of all columns or those named, without heading and caption."""
        found = self._table(name)
        if found is None:
            raise LookupError(f"{self.name} has no table {name}")
        places = [i for i, column in enumerate(found.columns) if not headings or column.heading in headings]
        rows = tuple(tuple(row[i] for i in places) for row in found.rows)
        shown = replace(found, columns=tuple(found.columns[i] for i in places), rows=rows)
        return "\n".join(line for line in to_markdown(shown).splitlines() if line.startswith("|"))

    def _table(self, name: str) -> Table | None:
        built = (build(self.results) for topic in TOPICS for build in topic.tables)
        return next((table for table in built if table is not None and table.name == name), None)
