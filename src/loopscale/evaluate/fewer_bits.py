"""Precision: what the exits lose, and how far the states go astray, when weights or states are held in fewer bits.

A loop hands its state on, so that what one pass rounds away is there in every later one.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn

from loopscale.batches import Batches, Window, windows_of
from loopscale.call import Call
from loopscale.errors import InputError, unknown
from loopscale.evaluate.curve import depth_curve
from loopscale.facts import facts_of
from loopscale.processes import each
from loopscale.state import norm
from loopscale.stepping import Looped, evaluating
from loopscale.system.precision import perplexity

GROUP = 32  # weights that share a scale in int4
FULL = "float32"

M = TypeVar("M")


def _quantised(model: nn.Module, name: str) -> nn.Module:
    """Round the weights of the linear maps, head included, by torchao; embeddings and norms stay."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

    if name == "int8":
        quantize_(model, Int8WeightOnlyConfig())
        return model
    for at, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features % GROUP:
            raise InputError(
                f"int4 rounds weights in groups of {GROUP}, and {at} has {module.in_features} columns: leave int4 out."
            )
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=vars(torch)["int4"], granularity=PerGroup(GROUP)))
    return model


def _cast(model: nn.Module, name: str) -> nn.Module:
    return model.to(getattr(torch, name))


# what a precision does to a copy of a model: `float32` and below, weights and states; `int8` and `int4`, weights alone
PRECISIONS: Mapping[str, Callable[[nn.Module, str], nn.Module]] = {
    **dict.fromkeys((FULL, "bfloat16", "float16"), _cast),
    **dict.fromkeys(("int8", "int4"), _quantised),
}
SHORT: Mapping[str, str] = {"bf16": "bfloat16", "fp16": "float16"}


def available(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of some precisions that can be had here: whole numbers need torchao."""
    there = find_spec("torchao") is not None
    return tuple(name for name in names if there or PRECISIONS[name] is not _quantised)


def precision_named(name: str) -> str:
    """Return the full name of a precision. Raises `InputError` for one that is not known, or needs torchao."""
    full = SHORT.get(name, name)
    if full not in PRECISIONS:
        raise unknown("precision", name, (*PRECISIONS, *SHORT))
    if not available([full]):
        raise InputError(f"precision {name} needs torchao: pip install 'loopscale[quant]'.")
    return full


def in_precision(model: M, name: str) -> M:
    """Return a copy of a model in a precision (see `precision_named`), in eval mode; the model itself stays.

    `bfloat16` and `float16` hold weights and states; `int8` (one scale for a row) and `int4` (one for 32 weights) hold
    the weights of linear maps, the head's among them, symmetric about 0, and states stay as they are.
    """
    full, copy = precision_named(name), cast(nn.Module, deepcopy(model))
    with torch.no_grad():
        return cast(M, PRECISIONS[full](copy.eval(), full))


@final
@dataclass(frozen=True)
class PrecisionReport:
    """One model in one precision, beside itself in float32: a value per loop.

    cross_entropy: nats per token; perplexity: of the exit; relative_perplexity: over that of float32.
    state_error: mean over tokens of ||z' - z|| / ||z||; norm: mean ||z'||; not_finite: tokens whose state overflows
    (they are left out of the means).
    """

    precision: str
    tokens: int
    cross_entropy: tuple[float, ...]
    perplexity: tuple[float, ...]
    relative_perplexity: tuple[float, ...]
    state_error: tuple[float, ...]
    norm: tuple[float, ...]
    not_finite: tuple[int, ...]


def measure_precisions(
    model: Looped | Any, batches: Batches, names: Sequence[str], max_loops: int | None = None
) -> tuple[PrecisionReport, ...]:
    """Return what exits 1..`max_loops` (default: the trained depth) are in each precision, `float32` first.

    Raises `InputError` as `precision_named` and `depth_curve` do.
    """
    names = [FULL, *(full for full in dict.fromkeys(map(precision_named, names)) if full != FULL)]
    windows, loops = list(batches), facts_of(model).trained_depth if max_loops is None else max_loops
    full = in_precision(model, FULL)
    reports: list[PrecisionReport] = []
    for name in names:
        changed = full if name == FULL else in_precision(model, name)
        curve = depth_curve(changed, windows, loops)
        losses = tuple(point.cross_entropy for point in curve)
        reference = reports[0].cross_entropy if reports else losses
        reports.append(
            PrecisionReport(
                precision=name,
                tokens=int(curve.tokens.sum()),
                cross_entropy=losses,
                perplexity=tuple(map(perplexity, losses)),
                relative_perplexity=tuple(
                    perplexity(own - other) for own, other in zip(losses, reference, strict=True)
                ),
                **_states(full, changed, windows, loops),
            )
        )
    return tuple(reports)


def _states(full: Any, changed: Any, windows: Batches, loops: int) -> dict[str, tuple]:
    """Return the figures of the states of a model beside those of another, by loop."""

    def of_window(window: Window) -> Tensor:
        """Return sums of errors, of norms, of tokens, and of tokens that overflow, (4, loops)."""
        states = zip(Call(full, window.inputs).states(loops), Call(changed, window.inputs).states(loops), strict=True)
        rows = []
        for z, other in states:
            own = norm(other)
            good = window.counted & own.isfinite()
            error = norm(other.to(z.dtype) - z) / norm(z).clamp_min(torch.finfo(torch.float32).tiny)
            found = (torch.where(good, error, 0.0), torch.where(good, own, 0.0), good, window.counted & ~good)
            rows.append(torch.stack([value.double().sum() for value in found]))
        return torch.stack(rows, 1).cpu()  # one transfer a window

    sums = torch.zeros(4, loops, dtype=torch.float64)
    with evaluating(full), evaluating(changed):
        for found in each(windows_of(full, windows, facts_of(full).padding), of_window):
            sums += found
    error, norms, tokens, lost = sums
    return {
        "state_error": tuple((error / tokens).tolist()),
        "norm": tuple((norms / tokens).tolist()),
        "not_finite": tuple(int(n) for n in lost.tolist()),
    }
