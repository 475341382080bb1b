"""The document `results.json`: what every run of a study measured, read and written in one place.

Its schema stands in docs/results.md. A number that is not finite (a diverged run) is `null` in the file,
because JSON has no other word for it, and NaN here. Keys this module does not know are kept in `extra` and
written back unchanged, so that another measurement can add its own to a run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopscale.errors import InputError
from loopscale.storage import REST, plain, write_json

from .reading import Reader

SCHEMA = 1
RESULTS_FILE = "results.json"
CORPUS_KEYS = ("name", "sha256", "tokenizer", "vocab_size")

Verdict = Literal["holds", "does not hold", "not tested here"]


@dataclass(frozen=True)
class Run:
    """One trained model: one condition, one seed. All lists go by loop, the first loop first.

    `perplexity`, `cross_entropy` (nats per token) and `norm` (mean ||H_k||_2) have one value per trained
    loop; `perplexity_by_depth` and `norm_by_depth` go on past the trained depth. `tokens` is the number of
    evaluated tokens behind each of them, `checkpoint` a path relative to the results.
    """

    seed: int
    perplexity: tuple[float, ...]
    cross_entropy: tuple[float, ...]
    norm: tuple[float, ...]
    perplexity_by_depth: tuple[float, ...]
    norm_by_depth: tuple[float, ...]
    steps: int
    train_seconds: float
    tokens: int
    parameters: int
    checkpoint: str
    extra: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def diverged(self) -> bool:
        """Whether training met what is not finite, or a loss or a norm within the trained depth is not."""
        return "diverged" in self.extra or not all(map(math.isfinite, (*self.cross_entropy, *self.norm)))

    @classmethod
    def from_dict(cls, document: object, where: str = "the run") -> "Run":
        """Read one run; `where` names its place in the sentence of an `InputError`."""
        reader = Reader(document, where)
        return cls(
            seed=reader.integer("seed"),
            perplexity=reader.numbers("perplexity"),
            cross_entropy=reader.numbers("cross_entropy"),
            norm=reader.numbers("norm"),
            perplexity_by_depth=reader.numbers("perplexity_by_depth"),
            norm_by_depth=reader.numbers("norm_by_depth"),
            steps=reader.integer("steps"),
            train_seconds=reader.number("train_seconds"),
            tokens=reader.integer("tokens"),
            parameters=reader.integer("parameters"),
            checkpoint=reader.text("checkpoint"),
            extra=reader.rest(),
        )


@dataclass(frozen=True)
class ConditionResult:
    """One condition of the grid: what was varied, and its runs, one per seed."""

    supervision: str
    readout: str
    recurrence: str
    norm_penalty_coef: float
    runs: tuple[Run, ...]
    extra: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    @classmethod
    def from_dict(cls, document: object, where: str) -> "ConditionResult":
        """Read one condition; `where` names its place in the sentence of an `InputError`."""
        reader = Reader(document, where)
        return cls(
            supervision=reader.text("supervision"),
            readout=reader.text("readout"),
            recurrence=reader.text("recurrence"),
            norm_penalty_coef=reader.number("norm_penalty_coef"),
            runs=tuple(Run.from_dict(run, f"{where}, run {i}") for i, run in enumerate(reader.list("runs"), 1)),
            extra=reader.rest(),
        )


@dataclass(frozen=True)
class Judgement:
    """A claim with what was measured: `value` is the mean of `values`, which has one value per seed of
    `seeds`.

    `agree` counts the seeds that meet the threshold on their own. `published` is the paper's figure in
    words, None where the paper gives none. Nothing here is a test of significance.
    """

    id: str
    statement: str
    value: float | None
    unit: str
    threshold: str
    published: str | None
    verdict: Verdict
    n: int
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    agree: int
    note: str


@dataclass(frozen=True)
class Results:
    """A whole study. `claims` follow from the runs (`claims.judged`): reading a file leaves them out."""

    preset: str
    corpus: Mapping[str, Any]
    environment: Mapping[str, Any]
    config: Mapping[str, Any]
    num_loops: int
    conditions: Mapping[str, ConditionResult]
    claims: tuple[Judgement, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    def runs(self, condition: str) -> tuple[Run, ...]:
        """Return the runs of `condition`; none where it was not trained."""
        return self.conditions[condition].runs if condition in self.conditions else ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of all conditions, in order."""
        return tuple(sorted({run.seed for condition in self.conditions.values() for run in condition.runs}))

    @classmethod
    def from_dict(cls, document: object, where: str = RESULTS_FILE) -> "Results":
        """Read a whole document; `where` names it in the sentence of an `InputError`."""
        reader = Reader(document, where)
        if (schema := reader.integer("schema")) != SCHEMA:
            raise InputError(f"{where} has schema {schema}, this loopscale reads {SCHEMA}: train it anew.")
        reader.list("claims")
        results = cls(
            preset=reader.text("preset"),
            corpus=reader.mapping("corpus", CORPUS_KEYS),
            environment=reader.mapping("environment"),
            config=reader.mapping("config"),
            num_loops=reader.integer("num_loops"),
            conditions={
                name: ConditionResult.from_dict(condition, f"{where}, condition '{name}'")
                for name, condition in reader.mapping("conditions").items()
            },
            extra=reader.rest(),
        )
        results._check_loops(where)
        return results

    def to_dict(self) -> dict[str, Any]:
        """Return the document of docs/results.md: lists, dicts, numbers; `null` for what is not finite."""
        return {"schema": SCHEMA, **plain(self)}

    def _check_loops(self, where: str) -> None:
        if self.num_loops < 1:
            raise InputError(f"{where}: 'num_loops' must be at least 1: not a file that loopscale wrote.")
        for name, condition in self.conditions.items():
            for run in condition.runs:
                for key in ("perplexity", "cross_entropy", "norm"):
                    if (found := len(getattr(run, key))) != self.num_loops:
                        raise InputError(
                            f"{where}, condition '{name}', seed {run.seed}: '{key}' has {found} values, "
                            f"num_loops is {self.num_loops}: one value per loop is needed."
                        )


def load(path: Path) -> Results:
    """Read `results.json`; a missing, broken or foreign file raises `InputError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no results at {path}: name the folder that 'loopscale reproduce' wrote.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): run 'loopscale reproduce' again to rewrite it.") from error
    return Results.from_dict(document, path.name)


def save(results: Results, path: Path) -> None:
    """Write `results.json` whole or not at all."""
    write_json(path, results.to_dict())
