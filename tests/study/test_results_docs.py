from dataclasses import fields
from pathlib import Path

from loopscale.environment import environment
from loopscale.study.claims import CLAIMS, judged
from loopscale.study.figures import FIGURES
from loopscale.study.measure import MEASUREMENTS
from loopscale.study.results import ConditionResult, Judgement, Results, Run
from loopscale.study.tables import TABLES

DOCS = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_schema_names_every_key():
    kinds = (Results, ConditionResult, Run, Judgement)
    keys = {field.name for kind in kinds for field in fields(kind)} - {"extra"}
    assert not {key for key in {*keys, *environment()} if f"`{key}`" not in DOCS}


def test_the_schema_names_every_measurement_and_table(measured_study):
    assert not [name for name in MEASUREMENTS if f"| `{name}` |" not in DOCS]
    results = judged(measured_study())
    assert not [table.name for build in TABLES if f"tables/{(table := build(results)).name}.md" not in DOCS]


def test_the_schema_names_every_claim_and_figure():
    assert not [claim.id for claim in CLAIMS if f"| `{claim.id}` |" not in DOCS]
    assert not [figure.name for figure in FIGURES if f"figures/{figure.name}." not in DOCS]
