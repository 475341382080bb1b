"""Calibrated rule: a halting rule with its threshold, which decoding and evaluation stop by and a file keeps."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from loopscale.errors import InputError, unknown
from loopscale.halting.rules import Exit, HaltingRule, Level, Real, Scores, row_means, rule_named
from loopscale.stepping import Logits, Looped, State
from loopscale.storage import read_json, write_json

VALUES = 64  # of every weight, that tell one model from another
Stops = Bool[Tensor, "batch seq"]  # made once: a function that is defined anew at every token would make it anew


@final
@dataclass(frozen=True)
class StoredRule:
    """A calibrated rule as a file holds it: its rule by name, and None for the threshold that never stops.

    No exit before `first_exit` (from 1) stops anything.
    """

    rule: str
    threshold: float | None
    level: str
    num_loops: int
    model: str | None = None
    first_exit: int = 1


@dataclass(frozen=True)
class CalibratedRule:
    """A rule with the threshold it stops at.

    `level` says what stops: a `token` by its own score, or a whole `sequence` by the mean score of its tokens. The two
    need different thresholds. `num_loops` is the full depth it was calibrated at: the last exit always stops, and no
    exit before `first_exit` (from 1) does. An infinite threshold never stops early. `model` is the fingerprint of the
    model whose scores it was calibrated on.
    """

    rule: HaltingRule
    threshold: float
    level: Level
    num_loops: int
    model: str | None = None
    first_exit: int = 1

    @property
    def stops_early(self) -> bool:
        """Return whether there is a score that stops anything before the last exit."""
        return self.threshold < math.inf and self.first_exit < self.num_loops

    def may_stop_at(self, k: int) -> bool:
        """Return whether exit k (from 0) is one that it may stop at."""
        return k + 1 >= self.first_exit

    def looks_at(self, k: int) -> bool:
        """Return whether it needs the scores of exit k (from 0): those before its first exit only to compare with.

        A rule that reads no logits adds its scores up from the first exit on (the gate's), and looks at all of them.
        """
        compared = self.rule.reads_before and (k + 2 >= self.first_exit or not self.rule.reads_logits)
        return self.may_stop_at(k) or compared

    def halts(self, scores: Scores, real: Real | None = None) -> Bool[Tensor, "batch seq"]:
        """Return which tokens stop at an exit with these scores; at level `sequence`, all of a row or none.

        Tokens that are not `real` only fill a row: they have no say in when it stops (by default all are).
        """
        if self.level == "sequence":
            return (row_means(scores, real) >= self.threshold).expand_as(scores)
        return scores >= self.threshold

    def watch(self, model: Looped) -> Callable[[int, State, Callable[[], Logits]], Bool[Tensor, "batch seq"]]:
        """Return a function to ask at every exit of one pass, in turn, which tokens stop there (for decoding).

        It takes the loop k from 0, its state and a function that gives its logits.
        """
        before: Exit | None = None

        def stops(k: int, z: State, logits: Callable[[], Logits]) -> Stops:
            nonlocal before
            if not self.looks_at(k):
                return torch.zeros(z.shape[:-1], dtype=torch.bool, device=z.device)
            now = Exit(k, z, logits() if self.rule.reads_logits else None)
            scores = self.rule.scores(model, now, before)
            before = replace(now, scores=scores) if self.rule.reads_before else None
            halts = self.halts(scores)
            return halts if self.may_stop_at(k) else torch.zeros_like(halts)

        return stops

    def require_fit(self, model: Looped, num_loops: int) -> None:
        """Raise `InputError` if the model has no part for the rule or runs another depth; warn if it is another one."""
        self.rule.require_fit(model)
        if self.num_loops != num_loops:
            raise InputError(f"the halting rule was calibrated for {self.num_loops} loops, not for {num_loops}.")
        if self.model is not None and self.model != fingerprint(model):
            warnings.warn(
                "the halting rule was calibrated on another model: what it promised does not hold for this one.",
                stacklevel=3,
            )

    def stored(self) -> StoredRule:
        """Return what a file holds of the rule."""
        threshold = None if self.threshold == math.inf else self.threshold
        return StoredRule(self.rule.name, threshold, self.level, self.num_loops, self.model, self.first_exit)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; the threshold that never stops is null."""
        return asdict(self.stored())

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "CalibratedRule":
        """Build the rule of a description. Raises `InputError` where something is missing or unknown."""
        try:
            name, threshold, level, num_loops = (
                description[key] for key in ("rule", "threshold", "level", "num_loops")
            )
            stop_at = math.inf if threshold is None else float(threshold)
            full_depth, first = int(num_loops), int(description.get("first_exit", 1))
            if math.isnan(stop_at) or full_depth != num_loops or not 1 <= first <= full_depth:
                raise ValueError
            if not isinstance(name, str):
                raise TypeError
        except KeyError as missing:
            raise InputError(f"not a calibrated halting rule: {missing} is missing.") from missing
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                "not a calibrated halting rule: rule must be a name, threshold, num_loops and first_exit numbers."
            ) from error
        if level not in ("sequence", "token"):
            raise unknown("halting level", level, ("sequence", "token"))
        return cls(rule_named(name), stop_at, level, full_depth, description.get("model"), first)

    def save(self, path: str | Path) -> None:
        """Write the rule as JSON."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "CalibratedRule":
        """Read a rule that `save` wrote. Raises `InputError` where there is none."""
        remedy = "write a halting rule with loopscale evaluate --halting"
        return cls.from_dict(read_json(Path(path), dict[str, Any], remedy))


#: How a record holds the rule that it is about: ready to stop by, or as a file has it.
Rule = TypeVar("Rule", CalibratedRule, StoredRule)


def fingerprint(model: Looped | Any) -> str:
    """Return a short hash of a model's weights: names, shapes, and a few values of each in bf16.

    The same in any floating-point precision and on any device; a model that keeps no weights has none.
    """
    digest = hashlib.sha256()
    if isinstance(model, nn.Module):
        for name, weight in model.named_parameters():
            values = weight.detach().flatten()[:VALUES].to("cpu", torch.bfloat16).view(torch.int16)
            digest.update(f"{name} {tuple(weight.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]
