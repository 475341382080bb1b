"""Document `results.json`: read by the types of its records and written back, in one place.

Its schema stands in docs/results.md. Keys that nothing here knows are kept and written back.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopscale.errors import InputError
from loopscale.storage import from_json, plain, read_json, write_json

from .results import RESULTS_FILE, Failed, Results, Run
from .topics import TOPICS

SCHEMA = 1
HISTORY = "history"  # log lines of the training
CORPUS_KEYS = ("name", "sha256", "tokenizer", "vocab_size")
REMEDY = "run 'loopscale reproduce' again to rewrite it"


def load(path: Path) -> Results:
    """Read `results.json`; a missing, broken or foreign file raises `InputError`."""
    if not path.exists():
        raise InputError(f"no results at {path}: name the folder that 'loopscale reproduce' wrote.")
    return results_from(read_json(path, dict[str, Any], REMEDY), path.name)


def save(results: Results, path: Path) -> None:
    """Write `results.json` whole or not at all."""
    write_json(path, document_of(results))


def document_of(results: Results) -> dict[str, Any]:
    """Return the document of docs/results.md: lists, dicts, numbers; None for what is not finite."""
    return {"schema": SCHEMA, **plain(results)}


def results_from(document: Mapping[str, Any], where: str = RESULTS_FILE) -> Results:
    """Return the results of a document, without its claims; `where` names it in the sentence of an `InputError`."""
    rest = dict(document)
    schema = rest.pop("schema", None)
    if schema != SCHEMA or isinstance(schema, bool):
        found = "lacks 'schema'" if schema is None else f"has schema {schema!r}"
        raise InputError(f"{where} {found}, this loopscale reads {SCHEMA}: {REMEDY}.")
    results = from_json({**rest, "claims": []}, Results, where, REMEDY)
    _check(results, where)
    conditions = {
        name: replace(condition, runs=tuple(with_records(run, f"{where}, {name}") for run in condition.runs))
        for name, condition in results.conditions.items()
    }
    return replace(results, conditions=conditions)


def run_from(document: Any, where: str) -> Run:
    """Return one run of a document; `where` names it in the sentence of an `InputError`."""
    return with_records(from_json(document, Run, where, REMEDY), where)


def with_records(run: Run, where: str) -> Run:
    """Return a run whose records are of the topics' types."""
    found = dict(run.measured)
    if HISTORY in found:
        from_json(found[HISTORY], list[dict[str, float | None]], f"{where}, seed {run.seed}, {HISTORY}", REMEDY)
    for topic in TOPICS:
        if topic.record is not None and topic.name in found:
            kind = Failed if _failed(found[topic.name]) else topic.record
            found[topic.name] = from_json(found[topic.name], kind, f"{where}, seed {run.seed}, {topic.name}", REMEDY)
    return replace(run, measured=found)


def _failed(record: Any) -> bool:
    return isinstance(record, Mapping) and set(record) == {"failed"}


def _check(results: Results, where: str) -> None:
    if missing := [key for key in CORPUS_KEYS if key not in results.corpus]:
        raise InputError(f"{where}, corpus lacks '{missing[0]}': {REMEDY}.")
    if results.num_loops < 1:
        raise InputError(f"{where}, num_loops must be at least 1: {REMEDY}.")
    for name, condition in results.conditions.items():
        for run in condition.runs:
            for key in ("perplexity", "cross_entropy", "norm"):
                if (found := len(getattr(run, key))) != results.num_loops:
                    raise InputError(
                        f"{where}, condition '{name}', seed {run.seed}: '{key}' has {found} values, "
                        f"num_loops is {results.num_loops}: one value per loop is needed."
                    )
