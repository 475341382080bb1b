"""Ranking: ways to control the scale beside each other, each at the best of its learning rates.

It speaks where a study holds the blind model `none` of the grid `scale-control` and others of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, final

from loopscale.audit import static_verdict
from loopscale.display import Column, Table, number, percent
from loopscale.model import LoopedConfig

from ...best_rates import best_names
from ...cells import agreed, columns_of_conditions, count_of, over_seeds, ratio_over_seeds, seeds_said
from ...grid import RATE, SCALE_CONTROL, TRAINING
from ...results import Results, Run
from ...topic import Topic, finite
from ..audit import TOPIC as AUDIT
from ..audit import scale_verdict
from ..depth import exit_of
from ..exits import final_perplexity_ratio
from ..looping import depth_gain
from ..rates import at_the_highest_rate, end_of, rates_tried
from .control import FAR, ControlRecord
from .control import TOPIC as CONTROL

BLIND = "none"


@final
@dataclass(frozen=True)
class Entry:
    """One way to control the scale: its runs at its best learning rate, the rates that were tried, and its fields."""

    rate: float | None
    tried: tuple[float, ...]
    runs: tuple[Run, ...]
    fields: Mapping[str, Any]


def entries(results: Results) -> dict[str, Entry]:
    """Return the entries of the grid by name, in its order; none in a study without the blind model and another."""
    tried, names = rates_tried(results), best_names(results)
    best = {entry: names[entry] for entry in SCALE_CONTROL if entry in names}
    if BLIND not in best or len(best) < 2:
        return {}
    usual = results.config.get("train", {}).get("learning_rate")
    found = {}
    for entry, name in best.items():
        model = results.conditions[name].model
        found[entry] = Entry(model.get(RATE, usual), tuple(tried[entry]), results.runs(name), model)
    return found


def _rate(entry: Entry) -> str:
    if entry.rate is None:
        return "–"
    end = end_of(entry.rate, entry.tried)
    return f"{entry.rate:g}{end and f' ({end})'}"


def control(results: Results) -> Table | None:
    """What every way is worth: exits, far exits, norms, useful band, dynamics, verdict, rank; a row per entry."""
    found, ranks, dearest = entries(results), ranks_by_seed(results), at_the_highest_rate(results)

    def cells(name: str, entry: Entry) -> list[str]:
        runs = entry.runs
        own = [ranks[seed][name] for seed in ranks]
        return [
            _rate(entry),
            *(over_seeds(runs, partial(_perplexity, k=k)) for k in (0, results.num_loops - 1)),
            "1" if name == BLIND else ratio_over_seeds(over_blind(found, name)) or "–",
            dearest.get(name, "–"),
            *(over_seeds(runs, partial(_far, place=i, figure="perplexity")) for i in range(len(FAR))),
            over_seeds(runs, depth_gain),
            agreed([f"{record.band[0]} to {record.band[1]}" for record in _records(runs)]) or "–",
            over_seeds(runs, lambda run: finite(run.norm[-1])),
            over_seeds(runs, lambda run: _far(run, len(FAR) - 1, "norm")),
            agreed([record.dynamics for record in _records(runs)]) or "–",
            agreed([(scale_verdict(run) or "–").replace("_", " ") for run in runs]),
            f"{number(fmean(own), 3)} [{min(own)} to {max(own)}]" if own else "–",
            count_of(runs),
        ]

    if not found:
        return None
    K = results.num_loops
    exits = (
        "rate",
        "exit 1",
        f"exit {K}",
        f"over {BLIND}",
        "highest rate",
        *(f"exit {n * K}" for n in FAR),
        "depth gain",
    )
    norms = (f"norm {K}", f"norm {FAR[-1] * K}")
    return Table(
        name="control",
        title="Ways to control the scale, and what they are worth",
        caption="Perplexity on the validation split, past the trained depth on few windows. Useful band: exits within "
        f"1% of the best, to {FAR[-1]} times the trained depth; dynamics of the state to there. Rank: by the last "
        "trained exit, mean over seeds [least to greatest]. Of several learning rates that with the best last exit "
        "counts (lowest, highest: an end of those tried), over the seeds that all have; over "
        f"{BLIND}: the last exit's perplexity over the blind model's, seed by seed; highest rate: what the highest "
        f"that all have costs over the best one. {seeds_said(results)}",
        columns=(
            *columns_of_conditions(*exits),
            Column("useful band"),
            *(Column(name, numeric=True) for name in norms),
            *map(Column, ("dynamics", "scale", "rank", "seeds")),
        ),
        rows=tuple((name, *cells(name, entry)) for name, entry in found.items()),
    )


def control_costs(results: Results) -> Table | None:
    """What every way costs and does: size, operations, time of a step, what is seen and kept, other precisions."""
    found = entries(results)

    def cells(entry: Entry) -> list[str]:
        runs, last = entry.runs, results.num_loops - 1
        seconds = fmean(run.train_seconds / run.steps for run in found[BLIND].runs if run.steps)
        stated = _stated(results, entry)
        return [
            over_seeds(runs, lambda run: float(run.parameters)),
            over_seeds(runs, lambda run: _megaflops(run, last)),
            over_seeds(runs, lambda run: run.train_seconds / run.steps / seconds if run.steps else None),
            over_seeds(runs, lambda run: fmean(record.radial_gradient_share) if (record := AUDIT.of(run)) else None),
            over_seeds(runs, lambda run: finite(record.retention[-1]) if (record := AUDIT.of(run)) else None),
            over_seeds(runs, lambda run: _turn(run, last)),
            *(over_seeds(runs, partial(_precision, to=to)) for to in ("bfloat16", "float16", "int8")),
            stated.replace("_", " "),
            agreed([_agrees(stated, verdict) for run in runs if (verdict := scale_verdict(run))]) or "–",
        ]

    if not found:
        return None
    return Table(
        name="control-costs",
        title="What the ways cost, and what the audit says",
        caption="Step time: over that of `none`, while others share the processor. Visibility: share of the "
        "gradient that moves the scale, mean over exits; retention of the last loop; turn: angular step per loop. "
        "bf16, float16, int8 (weights): last exit's perplexity over float32's. Stated: the verdict on scale from the "
        f"configuration alone, and whether the measurement agrees. {seeds_said(results)}",
        columns=(
            *columns_of_conditions("parameters", "MFLOPs", "step time", "visibility", "retention", "turn"),
            *(Column(name, numeric=True) for name in ("bf16", "float16", "int8")),
            *map(Column, ("stated", "agrees")),
        ),
        rows=tuple((name, *cells(entry)) for name, entry in found.items()),
    )


def over_blind(found: Mapping[str, Entry], name: str) -> list[float]:
    """Return an entry's last-exit perplexity over the blind model's, for every seed that both have.

    None at all where one of these runs diverged: those that survived would flatter the entry.
    """
    blind = {run.seed: run for run in found[BLIND].runs}
    pairs = [(run, blind[run.seed]) for run in found[name].runs if run.seed in blind]
    if any(run.diverged for pair in pairs for run in pair):
        return []
    return [final_perplexity_ratio(a, b) for a, b in pairs]


def ranks_by_seed(results: Results) -> dict[int, dict[str, int]]:
    """Return the rank of every entry by its last exit, for each seed that all have; what diverged comes last."""
    runs = {name: {run.seed: run for run in entry.runs} for name, entry in entries(results).items()}
    shared = sorted(set.intersection(*map(set, runs.values()))) if runs else []
    ranks = {}
    for seed in shared:
        order = sorted(runs, key=lambda name: runs[name][seed].loss)
        ranks[seed] = {name: place for place, name in enumerate(order, 1)}
    return ranks


def verdict_harm(results: Results) -> tuple[float, int, int] | None:
    """Return how often a blind entry has a worse last exit than a controlled one, over all pairs, and their numbers.

    Losses are means over the runs. 0.5 says that the verdict predicts nothing. None without both kinds.
    """
    losses: dict[bool, list[float]] = {True: [], False: []}
    for entry in entries(results).values():
        verdicts = {scale_verdict(run) for run in entry.runs}
        if len(verdicts) == 1 and None not in verdicts:
            losses["blind_spot" in verdicts].append(fmean(run.loss for run in entry.runs))
    blind, controlled = losses[True], losses[False]
    if not blind or not controlled:
        return None
    worse = fmean((a > b) + (a == b) / 2 for a in blind for b in controlled)
    return worse, len(blind), len(controlled)


def ranking_sentence(results: Results) -> str | None:
    """Name the best ways and the worst, and say whether the verdict predicts harm."""
    found = entries(results)
    if not found:
        return None
    over = {name: fmean(over_blind(found, name) or [math.inf]) for name in found}
    words = [f"{name} ({_word(over[name], found[name])})" for name in sorted(over, key=over.__getitem__)]
    said = f"The ways: last-exit perplexity over that of the blind model, best first, is {', '.join(words)}"
    if harm := verdict_harm(results):
        said += f"; a way that leaves a blind spot is worse than one that does not in {percent(harm[0])} of pairs"
        said += f" ({harm[1]} against {harm[2]}; 50% would say that the verdict predicts nothing)"
    return f"{said}."


def _word(ratio: float, entry: Entry) -> str:
    if math.isfinite(ratio):
        return number(ratio, 3)
    return "diverged" if any(run.diverged for run in entry.runs) else "nothing to compare with"


def _perplexity(run: Run, k: int) -> float | None:
    return finite(run.perplexity[k])


def _records(runs: Sequence[Run]) -> list[ControlRecord]:
    return [record for run in runs if (record := CONTROL.of(run))]


def _agrees(stated: str, measured: str) -> str:
    """Return whether a measured verdict is the stated one; what weights decide contradicts none."""
    return "yes" if stated in ("undecided", measured) else "no"


def _far(run: Run, place: int, figure: str) -> float | None:
    record = CONTROL.of(run)
    return None if record is None else finite(getattr(record.far[place], figure))


def _precision(run: Run, to: str) -> float | None:
    record = CONTROL.of(run)
    if record is None or to not in record.precisions:
        return None
    return finite(record.precisions[to][-1] / record.precisions["float32"][-1])


def _megaflops(run: Run, k: int) -> float | None:
    found = exit_of(run, "trained", k)
    return found.flops / 1e6 if found and found.flops else None


def _turn(run: Run, loops: int) -> float | None:
    record = AUDIT.of(run)
    return fmean(record.curves.angular_step[:loops]) if record and record.curves.angular_step else None


def _stated(results: Results, entry: Entry) -> str:
    """Return the verdict on scale that the configuration alone gives."""
    own = {name: value for name, value in entry.fields.items() if not name.startswith(TRAINING)}
    config = LoopedConfig(**{**results.config.get("model", {}), **own})
    return static_verdict(config, penalty=f"{TRAINING}scale_target" in entry.fields)["scale"].verdict


TOPIC: Topic[None] = Topic(
    name="ranking",
    heading="Control of the scale",
    place=51,
    tables=(control, control_costs),
    sentence=ranking_sentence,
)
