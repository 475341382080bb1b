"""Scan of cores: what looping a range of layers does to a pretrained model before anything is trained.

Every range and number of loops is one perplexity on the same windows, beside the original's; which layers can be looped
is the first question of a retrofit, and the cheapest to answer.

Letters: B batch, T tokens, D hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from loopscale.batches import Batches, Window, windows_of
from loopscale.display import Track, untracked
from loopscale.errors import InputError
from loopscale.evaluate.statistics import standard_error, token_mean
from loopscale.model import LoopedForCausalLM
from loopscale.retrofit.family import checked_core, refuse
from loopscale.retrofit.pretrained import load_pretrained
from loopscale.retrofit.surgery import retrofit
from loopscale.stepping import State, evaluating
from loopscale.storage import read_json, write_json
from loopscale.system.precision import perplexity

Core = tuple[int, int]
Way = tuple[int, bool]  # loops, and whether they are damped
Sums = Mapping[Way, Float[Tensor, " windows"]]
ORIGINAL: Way = (1, False)
LOOPS = (2, 3, 4)


@final
@dataclass(frozen=True)
class ScanPoint:
    """One core at one number of loops: nats per token, and what they are above the original's, paired by window.

    `damped`: every loop goes the 1/K part of its way, x + (S(x) - x) / K (arXiv 2605.23872), instead of all of it.
    """

    first: int
    last: int
    loops: int
    damped: bool
    cross_entropy: float
    above_original: float
    above_original_se: float

    @property
    def perplexity(self) -> float:
        """exp of the cross-entropy."""
        return perplexity(self.cross_entropy)


@final
@dataclass(frozen=True)
class Scan:
    """Every point that was measured, the original's cross-entropy, and what it was measured on.

    `identity` is a hash of the first and last weights and of the windows: a scan goes on only where they are the same.
    """

    layers: int
    tokens: int
    identity: str
    original: float
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    points: Sequence[ScanPoint] = field(default_factory=list)

    def of_core(self, core: Core) -> list[ScanPoint]:
        """Return the points of one core."""
        return [point for point in self.points if (point.first, point.last) == core]


def default_cores(layers: int) -> list[Core]:
    """Return ranges over the whole depth: a tenth, a fifth and two fifths of the layers, begun at every tenth."""
    stride = max(1, layers // 10)
    lengths = sorted({stride, 2 * stride, 4 * stride})
    return [(first, first + n) for n in lengths for first in range(0, layers - n + 1, stride)]


def scan_cores(
    model: PreTrainedModel | str,
    batches: Batches,
    cores: Sequence[Core] | None = None,
    loops: Sequence[int] = LOOPS,
    file: Path | None = None,
    track: Track = untracked,
) -> Scan:
    """Measure every core at every number of `loops`, plain and damped, without training anything.

    `cores` are (first layer, layer after the last); `default_cores` by default. What `file` holds of the same model and
    windows is not measured again, and it is written after every core: an interrupted scan goes on. Raises `InputError`
    for a model without a looped form, a core that is not there, and a file of another scan.
    """
    return scan_stack(whole_stack(model), batches, cores, loops, file, track)


def whole_stack(model: PreTrainedModel | str) -> LoopedForCausalLM:
    """Return a pretrained model with all of its layers as the core, of which a scan runs any range."""
    original = load_pretrained(model) if isinstance(model, str) else model
    refuse(original.config.to_dict())
    return retrofit(original, (0, original.config.num_hidden_layers), 1)


def scan_stack(
    stack: LoopedForCausalLM,
    batches: Batches,
    cores: Sequence[Core] | None = None,
    loops: Sequence[int] = LOOPS,
    file: Path | None = None,
    track: Track = untracked,
    measured_on: Mapping[str, Any] | None = None,
) -> Scan:
    """Do as `scan_cores` does, on a `whole_stack`; `measured_on` is kept beside the figures."""
    layers = stack.config.num_stack_layers
    wanted = [checked_core(core, layers) for core in (default_cores(layers) if cores is None else cores)]
    if not loops or min(loops) < 2:
        raise InputError(f"loops are {list(loops)}: give numbers from 2 on, one loop is the original.")
    ways = [(K, damped) for K in sorted({*loops}) for damped in (False, True)]
    windows = list(windows_of(stack, batches))
    counts = torch.cat([window.counted.sum(-1) for window in windows]).double().cpu()
    with evaluating(stack):
        once = _losses(stack, windows, (0, layers), [ORIGINAL])[ORIGINAL]
        found = _begun(file, _identity(stack, windows))
        if found is None:
            mean = float(token_mean(once, counts))
            found = Scan(layers, int(counts.sum()), _identity(stack, windows), mean, measured_on or {})
        for core in track([core for core in dict.fromkeys(wanted) if _lacking(found, core, ways)], "scanning cores"):
            sums = _losses(stack, windows, core, ways)
            points = [_point(core, way, sums[way], once, counts) for way in ways]
            others = [point for point in found.points if (point.first, point.last, point.loops) not in _places(points)]
            found = replace(found, points=[*others, *points])
            if file is not None:
                write_json(file, found)
    return found


def _point(core: Core, way: Way, sums: Tensor, once: Tensor, counts: Tensor) -> ScanPoint:
    above = sums - once
    return ScanPoint(
        *core,
        *way,
        cross_entropy=float(token_mean(sums, counts)),
        above_original=float(token_mean(above, counts)),
        above_original_se=float(standard_error(above, counts)),
    )


def _places(points: Sequence[ScanPoint]) -> set[tuple[int, int, int]]:
    return {(point.first, point.last, point.loops) for point in points}


def _losses(model: LoopedForCausalLM, windows: Sequence[Window], core: Core, ways: Sequence[Way]) -> Sums:
    """Return the summed cross-entropy of every window, with the core looped in every one of these ways."""
    parts = [_window_losses(model, window, core, ways) for window in windows]
    return {way: torch.cat([part[way] for part in parts]).double().cpu() for way in ways}


def _window_losses(model: LoopedForCausalLM, window: Window, core: Core, ways: Sequence[Way]) -> Sums:
    first, last = core
    context, read = model.context(window.inputs), model.facts().readings["trained"]

    def through(x: State, layers: range) -> State:
        for i in layers:
            layer: Any = model.model.layers[i]
            x, _ = layer(x, i, context)
        return x

    def stack(x: State) -> State:
        return through(x, range(first, last))

    def loss(x: State) -> Float[Tensor, " batch"]:
        x = through(x, range(last, model.config.num_stack_layers))
        return read(x, 0, window.labels, context).sum(-1)

    entered = through(model.embed(window.inputs, context), range(first))
    found = {}
    x, plain = entered, [K for K, damped in ways if not damped]
    for K in range(1, max(plain, default=0) + 1):  # one run passes all of them
        x = stack(x)
        if K in plain:
            found[K, False] = loss(x)
    for K in (K for K, damped in ways if damped):
        x = entered
        for _ in range(K):
            x = torch.lerp(x, stack(x), 1 / K)
        found[K, True] = loss(x)
    return found


def _lacking(found: Scan, core: Core, ways: Sequence[Way]) -> bool:
    return not {*ways} <= {(point.loops, point.damped) for point in found.of_core(core)}


def _begun(file: Path | None, identity: str) -> Scan | None:
    """Return what a file holds of this scan. Raises `InputError` where it is of another model or text."""
    if file is None or not file.exists():
        return None
    found = read_json(file, Scan, "name another folder, or remove it")
    if found.identity != identity:
        raise InputError(f"{file} is a scan of another model or of other windows: name another folder, or remove it.")
    return found


def _identity(model: LoopedForCausalLM, windows: Sequence[Window]) -> str:
    ends = (model.model.layers[i].get_parameter("mlp.up_proj.weight") for i in (0, -1))
    hashed = sha256()
    for tensor in (*ends, *(part for window in windows for part in (window.inputs, window.labels))):
        hashed.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
