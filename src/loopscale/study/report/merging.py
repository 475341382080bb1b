"""Merging of studies: runs of one configuration from several folders and machines, as one study with more seeds.

What was trained on another text, at another depth or otherwise is refused: a mean over both would be of neither. A seed
of a condition counts once, or the same run would be taken for two; with other figures in two studies it is refused.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from loopscale.errors import InputError
from loopscale.storage import from_json, plain, resolved
from loopscale.system.environment import as_one
from loopscale.train import complete, differences

from ..document import REMEDY
from ..results import RESULTS_FILE, ConditionResult, Results, Run

STUDIES = "studies"  # key of the document under which a merged study says of what it is made
CORPUS = ("sha256", "tokenizer", "vocab_size")
FIGURES = ("steps", "tokens", "cross_entropy", "norm")  # of a run that stands in two studies
# how a run was computed, which the machine may ask for, and what is compared by its content
HOW = {"train.micro_batches", "train.checkpoint_loops", "train.compile", "train.deterministic", "data.tokenizer"}


@final
@dataclass(frozen=True)
class Part:
    """One of the studies that a merged one is made of, and its runs that stand in one before it."""

    name: str
    seeds: tuple[int, ...]
    left_out: tuple[str, ...]
    environment: Mapping[str, Any]


def parts_of(results: Results) -> tuple[Part, ...]:
    """Return what a study was merged from; nothing for one that was not. Raises `InputError` where it is damaged."""
    where = f"{RESULTS_FILE}, {STUDIES}"
    return from_json(results.extra.get(STUDIES, []), tuple[Part, ...], where, REMEDY)


def merged(folders: Sequence[Path], studies: Sequence[Results], out: Path) -> Results:
    """Return the studies of the folders as one, whose checkpoints are named from `out`.

    Raises `InputError` where two of them cannot be one study, naming what differs with both values.
    """
    names = _names(folders)
    first, where = studies[0], names[0]
    for name, study in zip(names[1:], studies[1:], strict=True):
        _check(where, first, name, study)
    conditions: dict[str, ConditionResult] = {}
    parts = []
    owners: dict[str, str] = {}
    for name, folder, study in zip(names, folders, studies, strict=True):
        twice = _add(conditions, owners, name, study, Path(os.path.relpath(folder, out)))
        parts.append(Part(name, study.seeds, tuple(twice), study.environment))
    return replace(
        first,
        preset=", ".join(dict.fromkeys(study.preset for study in studies)),
        environment=as_one(study.environment for study in studies),
        conditions=conditions,
        claims=(),
        extra={**first.extra, STUDIES: plain(parts)},
    )


def left_out(results: Results) -> list[str]:
    """Return a sentence for every study of a merged one whose runs stand in another too."""
    found = []
    for part in parts_of(results):
        if part.left_out:
            more = f" and {len(part.left_out) - 3} more" if len(part.left_out) > 3 else ""
            said = f"{', '.join(part.left_out[:3])}{more} left out, the same seed stands in a study before."
            found.append(f"{part.name}: {said}")
    return found


def _add(
    conditions: dict[str, ConditionResult], owners: dict[str, str], name: str, study: Results, place: Path
) -> list[str]:
    """Add a study's runs, whose `owners` it is then; return the names of those that a study before has too."""
    twice = []
    for condition, result in study.conditions.items():
        before = conditions.get(condition)
        known = {run.seed: run for run in before.runs} if before else {}
        for run in result.runs:
            if run.seed in known:
                twice.append(f"{condition}/seed-{run.seed}")
                _require_same(owners[twice[-1]], name, twice[-1], known[run.seed], run)
            else:
                owners[f"{condition}/seed-{run.seed}"] = name
                known[run.seed] = _placed(run, place)
        runs = sorted(known.values(), key=lambda run: run.seed)
        conditions[condition] = replace(before or result, runs=tuple(runs))
    return twice


def _require_same(where: str, name: str, run: str, ours: Run, theirs: Run) -> None:
    """Raise `InputError` where a run of one name has other figures in another study: which is it?"""
    for figure in FIGURES:
        a, b = getattr(ours, figure), getattr(theirs, figure)
        if str(a) != str(b):  # NaN is like NaN
            raise InputError(
                f"{where} and {name} hold {run} with other figures ({figure} is {a} in the first and {b} in the "
                "other): remove it from one of them, or train it there with another seed."
            )


def _placed(run: Run, place: Path) -> Run:
    return replace(run, checkpoint=(place / run.checkpoint).as_posix())


def _check(where: str, ours: Results, name: str, theirs: Results) -> None:
    for key in CORPUS:
        _alike(where, name, f"corpus.{key}", ours.corpus[key], theirs.corpus[key])
    _alike(where, name, "num_loops", ours.num_loops, theirs.num_loops)
    a, b = complete(ours.config), complete(theirs.config)
    for key in [*differences(a, b), "init_from"]:
        if key not in HOW:
            _alike(where, name, key, _value(a, key), _value(b, key))
    for condition in ours.conditions.keys() & theirs.conditions.keys():
        a, b = dict(ours.conditions[condition].model), dict(theirs.conditions[condition].model)
        for key in sorted({*a, *b}):
            _alike(where, name, f"{key} of condition {condition}", a.get(key), b.get(key))


def _alike(where: str, name: str, key: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise InputError(
            f"{where} and {name} are no one study: {key} is {ours} in the first and {theirs} in the other; "
            "merge runs of one configuration, or report each alone."
        )


def _value(document: Mapping[str, Any], name: str) -> Any:
    found: Any = document
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Return as much of each folder's path, from its end, as tells it from the others."""
    parts = [resolved(folder).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError("the same folder is given twice: name each study once.")
    ends = range(1, max(map(len, parts)) + 1)
    return next(names for end in ends if len(set(names := ["/".join(p[-end:]) for p in parts])) == len(parts))
