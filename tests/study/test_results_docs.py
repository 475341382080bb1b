from dataclasses import fields
from pathlib import Path

from loopscale.study import TOPICS, ConditionResult, Judgement, Results, Run, judged
from loopscale.study.grid import STATED
from loopscale.study.report import claims_table
from loopscale.system.environment import environment

DOCS = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_schema_names_every_key():
    kinds = (Results, ConditionResult, Run, Judgement)
    keys = {field.name for kind in kinds for field in fields(kind) if not field.metadata.get("rest")}
    assert not {key for key in {*keys, *STATED, *environment()} if f"`{key}`" not in DOCS}


def test_the_schema_names_every_record_and_table(measured_study):
    assert not [topic.name for topic in TOPICS if topic.record and f"| `{topic.name}` |" not in DOCS]
    results = judged(measured_study())
    builds = [claims_table, *(build for topic in TOPICS for build in topic.tables)]
    tables = [table for build in builds if (table := build(results))]  # those of another grid are not shown
    assert len(tables) > 10 and not [table.name for table in tables if f"tables/{table.name}.md" not in DOCS]


def test_the_schema_names_every_claim_and_figure():
    assert not [claim.id for topic in TOPICS for claim in topic.claims if f"| `{claim.id}` |" not in DOCS]
    assert not [figure.name for topic in TOPICS for figure in topic.figures if f"figures/{figure.name}." not in DOCS]
