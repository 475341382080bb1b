"""Halted run: rows whose tokens have all stopped leave the batch, and the clock says what that saved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Generic

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscale.batches import device_of
from loopscale.call import Call
from loopscale.errors import InputError, require_looped
from loopscale.evaluate.cost import REPEATS, interleaved_times
from loopscale.halting.calibrated import CalibratedRule, Rule
from loopscale.halting.rules import Exit, Real, Scores
from loopscale.stepping import Logits, Looped, Tokens, evaluating

Batches = Sequence[tuple[Tensor, Tensor]]  # input ids, and which of them are tokens
LeavingLogits = Float[Tensor, "leaving seq vocab"]


@dataclass(frozen=True)
class Leaving:
    """The tokens that stop at exit k (from 0): `logits` of the batch's `rows` in which `tokens` have selected it."""

    k: int
    rows: Int[Tensor, " leaving"]
    tokens: Bool[Tensor, "leaving seq"]
    logits: LeavingLogits


def halted_exits(
    model: Looped | Any, input_ids: Tokens, rule: CalibratedRule, real: Real | None = None
) -> Iterator[Leaving]:
    """Run a batch and yield what stops at each exit; every token of the batch is selected exactly once.

    `real` tells tokens from what fills a row behind them, which is selected nowhere (by default all are tokens).

    A row leaves the batch when all its tokens have stopped; at level `sequence` they stop together. Until then its
    tokens attend to each other at full depth, so a token's logits are those of its exit in an unhalted pass. Deciding
    who stays takes one synchronisation with the device per loop.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if real is None else real
    rows, stopped = torch.arange(len(input_ids), device=input_ids.device), ~real
    before: Exit | None = None
    call = Call(model, input_ids)
    h = call.embed()
    for k in range(rule.num_loops):
        z = call.step(h, k)
        now = Exit(k, z)
        if k + 1 == rule.num_loops:
            selected = ~stopped
        elif rule.stops_early:
            if not rule.looks_at(k):
                h = call.carry(z, k)
                continue
            now, scores = _look(call, rule, now, before)
            selected = rule.halts(scores, real) & ~stopped & rule.may_stop_at(k)
        else:
            h = call.carry(z, k)
            continue
        leaving = selected.any(-1).nonzero().squeeze(-1)
        if len(leaving):
            yield Leaving(k, rows[leaving], selected[leaving], _logits(call, now, leaving))
            stopped = stopped | selected
            staying = (~stopped).any(-1).nonzero().squeeze(-1)
            if not len(staying):
                return
            rows, stopped, real, now = rows[staying], stopped[staying], real[staying], now.rows(staying)
            call = call.rows(staying)
        h, before = call.carry(now.z, k), now


def _logits(call: Call, now: Exit, leaving: Tensor) -> LeavingLogits:
    """Return the logits of the leaving rows, decoded only now if the rule did not need them."""
    if now.logits is not None:
        return now.logits[leaving]
    if len(leaving) == len(now.z):
        return call.readout(now.z, now.k)
    return call.rows(leaving).readout(now.z[leaving], now.k)


def _look(call: Call, rule: CalibratedRule, now: Exit, before: Exit | None) -> tuple[Exit, Scores]:
    """Return the exit with all that the next one may ask of it, and its scores."""
    if rule.rule.reads_logits:
        now = replace(now, logits=call.readout(now.z, now.k))
    scores = rule.rule.scores(call, now, before)
    return replace(now, scores=scores), scores


def halted_logits(model: Looped | Any, input_ids: Tokens, rule: CalibratedRule, real: Real | None = None) -> Logits:
    """Return the logits of every token at the exit the rule selects for it, (batch, seq, vocab); 0 for filling."""
    found: Tensor | None = None
    for left in halted_exits(model, input_ids, rule, real):
        if found is None:
            found = left.logits.new_zeros(*input_ids.shape, left.logits.shape[-1])
        found[left.rows] = torch.where(left.tokens[..., None], left.logits, found[left.rows])
    assert found is not None  # every token is selected at the last exit at the latest
    return found


@dataclass(frozen=True)
class HaltingTime(Generic[Rule]):
    """Executed loops and wall time of a calibrated rule at one batch size, against passes to full depth.

    `selected_loops`: mean exit over tokens. `executed_loops`: mean over rows of the loops that ran. `seconds` and
    `full_seconds` are per window. Savings are 1 - executed / K and 1 - seconds / full_seconds.
    """

    rule: Rule
    batch_size: int
    windows: int
    selected_loops: float
    executed_loops: float
    seconds: float
    full_seconds: float
    loop_saving: float
    time_saving: float
    repeats: int
    loop_saving_over_fixed: float | None = None
    time_saving_over_fixed: float | None = None


def time_halting(
    model: Looped | Any,
    input_ids: Tokens,
    rules: Sequence[CalibratedRule],
    batch_size: int,
    repeats: int = REPEATS,
    real: Real | None = None,
) -> tuple[HaltingTime, ...]:
    """Time the windows `input_ids` in batches of `batch_size`: to full depth and with each of the rules, in turns.

    All produce the logits of every token at its exit. Times are medians over rounds. Raises `InputError` for rules of
    different full depths.
    """
    require_looped(model)
    depths = {rule.num_loops for rule in rules}
    if len(depths) != 1:
        raise InputError(f"rules calibrated at full depths {sorted(depths)}: time those of one depth together.")
    K = depths.pop()
    real = torch.ones_like(input_ids, dtype=torch.bool) if real is None else real
    device = device_of(model)
    batches = list(zip(input_ids.to(device).split(batch_size), real.to(device).split(batch_size), strict=True))
    with evaluating(model):
        loops = [_loops(model, batches, rule) for rule in rules]
        actions = [partial(_run_full, model, batches, K), *(partial(_run_halted, model, batches, r) for r in rules)]
        full, *halted = interleaved_times(actions, device, repeats)
    full_seconds = median(full) / len(input_ids)
    return tuple(
        HaltingTime(
            rule=rule,
            batch_size=batch_size,
            windows=len(input_ids),
            selected_loops=selected,
            executed_loops=executed,
            seconds=median(times) / len(input_ids),
            full_seconds=full_seconds,
            loop_saving=1 - executed / K,
            time_saving=1 - median(times) / len(input_ids) / full_seconds,
            repeats=repeats,
        )
        for rule, times, (selected, executed) in zip(rules, halted, loops, strict=True)
    )


def _loops(model: Looped, batches: Batches, rule: CalibratedRule) -> tuple[float, float]:
    """Return the mean selected loops over tokens and the mean executed loops over rows."""
    selected = executed = 0
    for ids, real in batches:
        deepest = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        for left in halted_exits(model, ids, rule, real):
            selected += (left.k + 1) * int(left.tokens.sum())
            deepest[left.rows] = left.k + 1
        executed += int(deepest.sum())
    tokens, rows = sum(int(real.sum()) for _, real in batches), sum(len(ids) for ids, _ in batches)
    return selected / tokens, executed / rows


def _run_halted(model: Looped, batches: Batches, rule: CalibratedRule) -> None:
    for ids, real in batches:
        for _ in halted_exits(model, ids, rule, real):
            pass


def _run_full(model: Looped, batches: Batches, num_loops: int) -> None:
    for ids, _ in batches:
        call = Call(model, ids)
        for z in call.states(num_loops):
            state = z
        call.readout(state, num_loops - 1)
