"""Settings: one study for each text, size, initialisation, length and optimizer, and what a control is worth in it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

from benchmarks.findings.matrices import markdown
from benchmarks.findings.study import Recipe, Study
from loopscale.display import Axis, Chart, Panel, Rule, Series, fresh_styles, mean_and_spread, percent
from loopscale.study.best_rates import at_best
from loopscale.study.cells import BETTER, NOT_DECIDED, WORSE, decided, ratio_over_seeds
from loopscale.study.topic import interval_of_ratios, per_seed
from loopscale.study.topics.exits import PLAIN, final_perplexity_ratio
from loopscale.study.topics.rates import AtRates, at_best_rate, best_rate, end_of
from loopscale.study.topics.ways import ranking
from loopscale.study.topics.ways.disputed import difference, norm_effects

BLIND = (ranking.BLIND, PLAIN)  # as a way, and as a condition of the paper
CONTROLS = {
    "penalty of 0.01": ("penalty-0.01", "per_loop-rmsnorm-penalty"),
    "raw readouts": ("raw", "per_loop-raw"),
    "inter-loop norm": ("inter_loop_norm", "per_loop-rmsnorm-normed"),
}
INITS = {"normal": "usual", "torch_default": "paper's"}
APART = 0.22  # of a row, between the marks of two controls
FAR = 4.0  # times no control, a ratio leaves the picture


@final
@dataclass(frozen=True)
class Setting:
    """A study as the one of its setting, with the others of it, best first."""

    study: Study
    others: tuple[Study, ...] = ()

    @property
    def init(self) -> str:
        """Return its initialisation in words."""
        return INITS[self.study.recipe.init]

    @property
    def words(self) -> str:
        """Return what it is: preset, initialisation, and what is unlike most."""
        recipe = self.study.recipe
        length = "" if recipe.steps == "400" else f"{int(recipe.steps):,} steps"
        return ", ".join(filter(None, (recipe.preset, f"{self.init} init", self.study.otherwise, length)))

    @property
    def table(self) -> str:
        """Return the table that holds its ratios."""
        return "control" if self.study.is_of_ways else "table-1"

    @property
    def searched(self) -> bool:
        """Whether the blind model was trained at several learning rates."""
        return len(_rates(self.study)) > 1

    def ratios(self, control: str) -> list[float]:
        """Return a control's last-exit perplexity over the blind model's, by seed; none where a run diverged."""
        results = at_best(self.study.results)
        names = (_of(self.study, names) for names in (CONTROLS[control], BLIND))
        return list(per_seed(final_perplexity_ratio, *names)(results).values.values())

    def cell(self, control: str) -> str:
        """Return a ratio with its interval, as a link."""
        ratios = self.ratios(control)
        alone = ", one seed" if len(ratios) == 1 else ""
        return self.study.link(f"{ratio_over_seeds(ratios)}{alone}", self.table) if ratios else "–"

    def blind(self) -> list[str]:
        """Return the cells of the model without control: perplexity, norm, learning rates tried, seeds."""
        runs, rates = at_best_rate(self.study.results, _of(self.study, BLIND)), _rates(self.study)
        last = [[run.perplexity[-1] for run in runs], [run.norm[-1] for run in runs]]
        cells = [self.study.link(mean_and_spread(values), self.table) for values in last]
        return [*cells, str(len(rates)), str(len(runs))]


def _of(study: Study, names: tuple[str, str]) -> str:
    """Return what a study of its kind, of the ways or of the paper's conditions, calls a model."""
    way, condition = names
    return way if study.is_of_ways else condition


def _rates(study: Study) -> AtRates:
    """Return the learning rates at which the model without control was trained."""
    return study.tried(_of(study, BLIND))


def _place(setting: Setting) -> tuple[int, int, str]:
    """Return where it stands: by initialisation, size and words."""
    init = list(INITS.values()).index(setting.init)
    return init, setting.study.results.all_runs[0].parameters, setting.words


def settings(studies: Iterable[Study]) -> list[Setting]:
    """Return one study a setting: of those that searched the learning rate the one with the most seeds, then rates."""
    found: dict[Recipe, list[Study]] = {}
    for study in studies:
        alike = study.recipe._replace(rates="", conditions="")
        if _rates(study):
            found.setdefault(alike, []).append(study)
    for same in found.values():
        same.sort(
            key=lambda study: (len(_rates(study)) > 1, len(study.results.seeds), len(_rates(study))), reverse=True
        )
    return sorted((Setting(best, tuple(rest)) for best, *rest in found.values()), key=_place)


def worth(found: Sequence[Setting]) -> str:
    """Return what every control is worth in every setting, as a Markdown table."""
    head = ["setting", "no control", "its norm", "rates", "seeds", *CONTROLS]
    rows = [
        [f"[{setting.words}](../results/{setting.study.name})", *setting.blind(), *map(setting.cell, CONTROLS)]
        for setting in found
    ]
    return markdown(head, rows)


def disputed(found: Sequence[Setting]) -> str:
    """Return what an inter-loop norm adds in nats in every setting, at the trained exits and far past them."""
    rows: list[list[str]] = []
    for setting in found:
        K = setting.study.results.num_loops
        kinds: dict[str, list[str]] = {}  # by layers, each of the first study that has it
        for study in (setting.study, *setting.others):
            for effect in norm_effects(study.results):
                layers = "sandwich" if effect.without == "sandwich" else "pre-norm"
                cells = [difference(effect.nats.get(k, ())) for k in (1, K, 4 * K, 16 * K)]
                row = [study.link(setting.words, "inter-loop-norm"), layers, *cells, str(effect.seeds)]
                kinds.setdefault(layers, row)
        rows.extend(kinds.values())
    return markdown(["setting", "layers", "exit 1", "exit K", "exit 4K", "exit 16K", "seeds"], rows)


def chart(found: Sequence[Setting]) -> Chart:
    """Draw what every control is worth in every setting, with its interval; hollow: one seed, which has none."""
    styles = fresh_styles({control: (control, "") for control in CONTROLS})
    series = []
    for place, (control, marker) in enumerate(zip(CONTROLS, "oDs", strict=True)):
        ratios = {row + (place - 1) * APART: setting.ratios(control) for row, setting in enumerate(found)}
        for alone in (False, True):
            own = {y: values for y, values in ratios.items() if values and (len(values) == 1) is alone}
            means, around = map(fmean, own.values()), map(interval_of_ratios, own.values())
            series.append(
                Series(
                    control,
                    tuple(means),
                    tuple(own),
                    styles[control],
                    marker=marker,
                    marks_only=True,
                    hollow=frozenset(range(len(own)) if alone else ()),
                    reach_x=tuple(filter(None, around)),
                )
            )
    x = Axis("last-exit perplexity over that of no control", log=True, end=FAR)
    y = Axis("", names=tuple(setting.words for setting in found))
    return Chart((Panel(x, y, tuple(series), rules=(Rule("x", 1.0, "no control"),)),))


def tally(found: Iterable[Setting], control: str) -> str:
    """Return in how many settings a control is better, worse, and not decided by its interval over seeds."""
    counts = Counter(filter(None, (decided(setting.ratios(control)) for setting in found)))
    said = [f"{word} in {counts[word]}" for word in (BETTER, WORSE, NOT_DECIDED) if counts[word]]
    return f"{', '.join(said)} of {counts.total()}"


def at_an_end(found: Iterable[Setting]) -> str:
    """Return in how many settings with several learning rates the best one without control is at an end of them."""
    ends = [
        end_of(
            best_rate(setting.study.results, _rates(setting.study)),
            {rate for study in (setting.study, *setting.others) for rate in _rates(study)},
        )
        for setting in found
        if setting.searched
    ]
    return f"{sum(map(bool, ends))} of {len(ends)}"


def harm(studies: Iterable[Study]) -> str:
    """Return the least and the greatest share of pairs in which a blind way is the worse one."""
    shares = sorted(share[0] for study in studies if (share := ranking.verdict_harm(study.results)))
    return " to ".join(dict.fromkeys((percent(shares[0]), percent(shares[-1]))))
