"""Loop check: a few steps at several widths, loops and learning rates, and what the state does over them.

After the coordinate check of muP (arXiv 2203.03466): what grows with the width or from loop to loop in a few steps is
what breaks at the size that is trained in the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscale.display import Track, number, untracked
from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.monitor.alarms import Thresholds
from loopscale.monitor.loop_sums import Reading
from loopscale.monitor.watcher import watch

Build = Callable[[int, int], nn.Module]  # width, loops
Loss = Callable[[Any, Tensor], Tensor]
BATCH, SEQUENCE = 4, 64
FAR = 1e30
SLOPE = 0.25  # of log scale over log width: at 0.5 the scale is as the square root of the width
GROWN = 2.0  # scale of the last loop over that of the first, or at the last step over that at the first
STILL = 0.25  # turn by the last loop over that by the first


@final
@dataclass(frozen=True)
class CheckPoint:
    """What one step at one width, number of loops and learning rate read. `reading` is None where it broke."""

    width: int
    loops: int
    rate: float
    step: int
    reading: Reading | None


@final
@dataclass(frozen=True)
class RateVerdict:
    """What the state does at one learning rate, at the most loops.

    width_slope: of log scale after the last loop over log width; None for one width. over_loops: scale after the last
    loop over that after the first. over_steps: at the last step over the first. turn: angular step to the last loop
    over that to the second; None for fewer than 3 loops. complaints: what of it is out of bounds; none is a good sign.
    """

    rate: float
    width_slope: float | None
    over_loops: float
    over_steps: float
    turn: float | None
    complaints: tuple[str, ...]


@final
@dataclass(frozen=True)
class LoopCheck:
    """Every point that was read, and the verdict on each learning rate."""

    points: tuple[CheckPoint, ...]
    verdicts: tuple[RateVerdict, ...]

    @property
    def steady(self) -> bool:
        """Whether nothing is out of bounds at any learning rate."""
        return not any(verdict.complaints for verdict in self.verdicts)

    def last(self, width: int, loops: int, rate: float) -> Reading | None:
        """Return the reading after the last step there."""
        return _last(self.points, width, loops, rate)


def loop_check(
    model: LoopedConfig | Build,
    widths: Sequence[int] = (),
    loops: Sequence[int] = (),
    rates: Sequence[float] = (3e-4, 3e-3),
    steps: int = 5,
    *,
    state: str | None = None,
    loss: Loss | None = None,
    batch: Int[Tensor, "batch seq"] | None = None,
    seed: int = 0,
    track: Track = untracked,
) -> LoopCheck:
    """Train for a few steps at every width, number of loops and learning rate, on one batch, and judge the state.

    `model` is a configuration of this library, or `build(width, loops)` of a model made elsewhere, with the `state`
    that `watch` takes and `loss(model, batch)`. `batch` holds token ids (default, for a configuration: random ones).
    Widths default to a quarter, half and the whole of the configuration's, loops to half, once and twice its number.
    AdamW without weight decay or clipping; the same seed everywhere.

    Raises `InputError` for widths that the heads do not divide, where something of the above is not given, and for a
    `build` that does not follow its arguments.
    """
    if isinstance(model, LoopedConfig):
        heads = model.num_attention_heads
        counts = [n for n in (max(heads // part, 1) for part in (4, 2, 1)) if n * model.hidden_size % heads == 0]
        widths = widths or sorted({n * model.hidden_size // heads for n in counts})
        loops = loops or sorted({max(model.num_loops // 2, 1), model.num_loops, 2 * model.num_loops})
        build, loss = _ours(model), loss or _own_loss
        batch = _random_tokens(model, seed) if batch is None else batch
    else:
        build = model
    if loss is None or batch is None or not (widths and loops and rates):
        raise InputError("loop_check of a model made elsewhere needs widths, loops, rates, state=, loss= and batch=.")
    widths, loops = tuple(dict.fromkeys(widths)), tuple(dict.fromkeys(loops))
    rates = tuple(dict.fromkeys(rates))
    if steps < 2 or min(*widths, *loops) < 1 or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"steps {steps} must be at least 2; widths, loops and learning rates above 0.")
    points: list[CheckPoint] = []
    for width, depth, rate in track(list(product(widths, loops, rates)), "loop check"):
        points += _run(build, width, depth, rate, steps, state, loss, batch, seed)
    _check_sizes(points)
    verdicts = tuple(_judge(points, sorted(widths), max(loops), rate, steps) for rate in rates)
    return LoopCheck(tuple(points), verdicts)


def _run(
    build: Build,
    width: int,
    loops: int,
    rate: float,
    steps: int,
    state: str | None,
    loss: Loss,
    batch: Tensor,
    seed: int,
) -> list[CheckPoint]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(width, loops)
        if not isinstance(model, nn.Module):
            raise InputError(f"build({width}, {loops}) returned {type(model).__name__}: return a torch module.")
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
        quiet = Thresholds(grown=FAR, range=1.0, ahead=0, turn=0.0, surge=FAR)  # the verdict says it
        with watch(model, state, every=1, thresholds=quiet) as watching:
            for _ in range(steps):
                value = loss(model, batch)
                if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise InputError(f"loss(model, batch) returned {found}: return one number that has a gradient.")
                if not bool(value.isfinite()):
                    break
                value.backward()
                optimizer.step()
                optimizer.zero_grad()
    read = {reading.step: reading for reading in watching.readings if all(map(math.isfinite, reading.norm))}
    return [CheckPoint(width, loops, rate, step, read.get(step)) for step in range(1, steps + 1)]


def _check_sizes(points: Sequence[CheckPoint]) -> None:
    """Check that a wider model has more channels, and one of more loops more states."""
    for name, made in (("width", lambda reading: reading.hidden), ("loops", lambda reading: len(reading.scale))):
        found: dict[int, int] = {}
        for point in points:
            if point.reading is not None:
                size = made(point.reading)
                before = found.setdefault(size, getattr(point, name))
                if before != getattr(point, name):
                    what = "channels" if name == "width" else "states"
                    raise InputError(
                        f"the model has {size} {what} at {name} {before} and at {name} {getattr(point, name)}: let "
                        "build(width, loops) follow both, and `state` match the module that ends each loop."
                    )


def _judge(points: Sequence[CheckPoint], widths: Sequence[int], loops: int, rate: float, steps: int) -> RateVerdict:
    last = {width: _last(points, width, loops, rate) for width in widths}
    first = next(p.reading for p in points if (p.width, p.loops, p.rate, p.step) == (widths[-1], loops, rate, 1))
    widest = last[widths[-1]]
    if first is None or widest is None or any(reading is None for reading in last.values()):
        return RateVerdict(rate, None, math.nan, math.nan, None, ("the state or the loss is not finite",))
    scales = [reading.scale[-1] for reading in last.values() if reading is not None]
    slope = _slope([math.log(width) for width in widths], [math.log(max(s, 1e-30)) for s in scales])
    over_loops, over_steps = widest.scale[-1] / widest.scale[0], widest.scale[-1] / first.scale[-1]
    turns = widest.angular_step
    turn = turns[-1] / turns[0] if len(turns) > 1 and turns[0] > 0 else None
    said = []
    if slope is not None and abs(slope) > SLOPE:
        said.append(f"the scale {'grows' if slope > 0 else 'falls'} with the width (power {slope:+.2f})")
    if over_loops > GROWN:
        said.append(f"the scale grows {number(over_loops, 2)} times from the first loop to loop {loops}")
    if over_steps > GROWN:
        said.append(f"the scale grows {number(over_steps, 2)} times in {steps - 1} updates")
    if turn is not None and turn < STILL:
        said.append(f"loop {loops} turns the state {number(turn, 2)} times as far as loop 2")
    return RateVerdict(rate, slope, over_loops, over_steps, turn, tuple(said))


def _last(points: Sequence[CheckPoint], width: int, loops: int, rate: float) -> Reading | None:
    there = [p for p in points if (p.width, p.loops, p.rate) == (width, loops, rate)]
    return there[-1].reading


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the slope of the least-squares line; None for one point."""
    if len(x) < 2:
        return None
    a, b = sum(x) / len(x), sum(y) / len(y)
    return sum((u - a) * (v - b) for u, v in zip(x, y, strict=True)) / sum((u - a) ** 2 for u in x)


def _ours(config: LoopedConfig) -> Build:
    """Return what builds the configuration at another width and number of loops: heads keep their size."""

    def build(width: int, loops: int) -> nn.Module:
        assert config.intermediate_size is not None and config.num_key_value_heads is not None  # the config fills them
        fields = config.to_dict()
        heads, rest = divmod(config.num_attention_heads * width, config.hidden_size)
        if heads < 1 or rest:
            raise InputError(
                f"width {width} is no whole number of heads, of which width {config.hidden_size} has "
                f"{config.num_attention_heads}: choose widths that are."
            )
        keys = max(1, heads * config.num_key_value_heads // config.num_attention_heads)
        fields |= {
            "hidden_size": width,
            "intermediate_size": round(config.intermediate_size * width / config.hidden_size),
            "num_attention_heads": heads,
            "num_key_value_heads": next(n for n in range(keys, 0, -1) if heads % n == 0),
            "num_loops": loops,
            "trained_loops": None,
            "loop_weights": None,
            "dropout": 0.0,
        }
        return LoopedForCausalLM(LoopedConfig(**fields))

    return build


def _own_loss(model: Any, batch: Tensor) -> Tensor:
    return model(batch, labels=batch).loss


def _random_tokens(config: LoopedConfig, seed: int) -> Tensor:
    length = min(SEQUENCE, config.max_position_embeddings)
    return torch.randint(config.vocab_size, (BATCH, length), generator=torch.Generator().manual_seed(seed))
