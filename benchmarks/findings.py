"""Page of findings, from the committed results: `python -m benchmarks.findings` writes docs/findings.md anew.

`python -m benchmarks.findings --keep runs/laptop laptop-cpu` first puts a study into results/, thinned: what no table
or figure needs of the training log is left out.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loopscale.display import Table, mean_and_spread, to_markdown
from loopscale.study import TOPICS, Judgement, Results, Run, judged, load, write_report
from loopscale.study.report import claim_interval, claim_value
from loopscale.study.topics import halting, looping, ranking, worth

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "findings.md"
LOGGED = ("step", "loss")  # of a log line, and the norm after the last loop


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.findings", description=__doc__)
    parser.add_argument("--keep", nargs=2, metavar=("RUN_DIR", "NAME"), help="put a study into results/NAME")
    args = parser.parse_args()
    if args.keep:
        keep(Path(args.keep[0]), args.keep[1])
    PAGE.write_text(page(), encoding="utf-8")


def keep(source: Path, name: str) -> None:
    """Write a study's results, tables and figures below results/, without the page."""
    results = load(source / "results.json")
    conditions = {
        condition: replace(found, runs=tuple(map(_thinned, found.runs)))
        for condition, found in results.conditions.items()
    }
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    write_report(replace(results, conditions=conditions), RESULTS / name)
    for path in ((RESULTS / name) / "report.html", *(RESULTS / name / "figures").glob("*.png")):
        path.unlink()


def _thinned(run: Run) -> Run:
    wanted = (*LOGGED, f"loop_norms/{len(run.norm)}")
    lines = [{key: line[key] for key in wanted if key in line} for line in run.measured.get("history") or ()]
    return replace(run, measured={**run.measured, "history": lines})


def page() -> str:
    """Return docs/findings.md: every number read from results/, with a link to the table that holds it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    studies = {path.parent.name: Study(path.parent.name, judged(load(path))) for path in _documents()}
    most = {}  # of studies that differ in nothing else, the one with the most seeds
    for study in sorted(studies.values(), key=lambda study: len(study.results.seeds)):
        most[tuple(study.what()[1:5])] = study
    decisive = [study for study in studies.values() if study in most.values()]
    return environment.get_template("findings.md.j2").render(studies=studies, decisive=decisive, said=said)


def _documents() -> list[Path]:
    return sorted(RESULTS.glob("*/results.json"))


class Study:
    """A committed study, as the page asks it: every answer is a link."""

    def __init__(self, name: str, results: Results) -> None:
        self.name, self.results = name, results
        self.claims = {claim.id: claim for claim in results.claims}

    def link(self, text: str, table: str) -> str:
        """Return the text as a link to one of its tables."""
        return f"[{text}](../results/{self.name}/tables/{table}.md)"

    def figure(self, name: str) -> str:
        """Return the path of one of its figures."""
        return f"../results/{self.name}/figures/{name}.svg"

    def what(self) -> list[str]:
        """Return name, preset, init, learning rate, steps, seeds and number of models."""
        config, results = self.results.config, self.results
        steps = sorted({run.steps for run in results.all_runs})
        return [
            f"[{self.name}](../results/{self.name})",
            results.preset,
            str(config["model"].get("init", "torch_default")),
            f"{config['train']['learning_rate']:g}",
            " to ".join(map(str, dict.fromkeys((steps[0], steps[-1])))),
            ", ".join(map(str, results.seeds)),
            str(len(results.all_runs)),
        ]

    def claim(self, id: str) -> str:
        """Return a claim's value with its interval and verdict."""
        claim = self.claims[id]
        around = claim_interval(claim) if claim.n > 1 else "(one seed)"
        return self.link(f"{claim_value(claim)} {around}: {claim.verdict}", "claims")

    def judged(self, verdict: str) -> list[Judgement]:
        """Return the claims with a verdict."""
        return [claim for claim in self.results.claims if claim.verdict == verdict]

    def cost(self, condition: str) -> str:
        """Return what a remedy costs at the last exit."""
        return self.link(worth.remedy_cost(self.results, condition) or "–", "table-1")

    def over(self, condition: str, figure: Callable[[Run], float], table: str) -> str:
        """Return a figure over the seeds."""
        return self.link(mean_and_spread([figure(run) for run in self.results.runs(condition)]), table)

    def perplexity(self, condition: str, k: int) -> str:
        """Return the perplexity of exit k, the last one for 0."""
        return self.over(condition, lambda run: run.perplexity[k - 1], "table-1")

    def far(self, condition: str) -> str:
        """Return the perplexity of the deepest exit of the curve, past the trained depth."""
        values = [run.perplexity_by_depth[-1] for run in self.results.runs(condition)]
        return f"[{mean_and_spread(values)}]({self.figure('perplexity-by-depth')})"

    def norm(self, condition: str) -> str:
        """Return the final norm."""
        return self.over(condition, lambda run: run.norm[-1], "table-1")

    def gain(self, condition: str) -> str:
        """Return the depth gain."""
        return self.over(condition, looping.depth_gain, "looping")

    def conditions(self, *names: str) -> list[str]:
        """Return those of the conditions that it has."""
        return [name for name in names if self.results.runs(name)]

    def tables(self) -> list[str]:
        """Return the names of its tables."""
        return [path.stem for path in (RESULTS / self.name / "tables").glob("*.md")]

    def table(self, name: str) -> str:
        """Return one of its tables as Markdown, without heading and caption."""
        built = (build(self.results) for topic in TOPICS for build in topic.tables)
        found: Table = next(table for table in built if table is not None and table.name == name)
        return "\n".join(line for line in to_markdown(found).splitlines() if line.startswith("|"))


def said(study: Study, what: str) -> str:
    """Return a sentence of the report."""
    sentences: dict[str, Callable[[Results], Any]] = {
        "looping": looping.looping_sentence,
        "halting": halting.halting_sentence,
        "ranking": ranking.ranking_sentence,
    }
    return study.link(sentences[what](study.results) or "–", {"ranking": "control"}.get(what, what))


if __name__ == "__main__":
    main()
