"""What the exits lose when the scale is taken in hand at inference: a causal reading beside the derivatives."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopscale.audit.findings import ByLoop
from loopscale.audit.measurement.checks import checked
from loopscale.audit.measurement.streams import LoopMeans, Sums, added_up
from loopscale.batches import Batches, Window
from loopscale.call import Call
from loopscale.facts import Reads, depth_of
from loopscale.processes import each
from loopscale.state import direction, norm, radial_step, scale
from loopscale.stepping import Looped, State, evaluating

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


def leave(z: State, before: State, first: State) -> State:
    """Change nothing."""
    return z


def remove_radial(z: State, before: State, first: State) -> State:
    """Subtract a_k u_k from the update: the state may turn but, to first order, not grow."""
    return z - radial_step(before, z)[..., None] * direction(before)


def freeze_first(z: State, before: State, first: State) -> State:
    """Give every token the scale it had after loop 1."""
    return direction(z) * scale(first)[..., None]


INTERVENTIONS: Mapping[str, Callable[[State, State, State], State]] = {
    "none": leave,
    "remove_radial": remove_radial,
    "freeze_first": freeze_first,
}


@dataclass(frozen=True)
class Interventions:
    """Cross-entropy of every exit (nats per token) and mean L2 norm of every state, by intervention.

    readout_scaling: the cross-entropy of every exit with the state scaled by a factor before the readout alone.
    """

    tokens: int
    cross_entropy: Mapping[str, ByLoop]
    norm: Mapping[str, ByLoop]
    readout_scaling: Mapping[float, ByLoop]

    def cost(self, name: str) -> ByLoop:
        """Return what an intervention adds to the cross-entropy of every exit, in nats per token."""
        return tuple(a - b for a, b in zip(self.cross_entropy[name], self.cross_entropy["none"], strict=True))


def intervene(
    model: Looped | Any,
    batches: Batches,
    num_loops: int | None = None,
    factors: Sequence[float] = FACTORS,
) -> Interventions:
    """Run every intervention over the batches; a changed state is read out and fed on.

    Raises `InputError` for a wrong model or batches, as `audit` does.
    """
    K = depth_of(model, num_loops)
    with evaluating(model):
        windows = checked(model, batches)[1]
        found = added_up(each(windows, lambda window: _of_batch(model, window, K, factors)))
    losses, norms = (dict(zip(INTERVENTIONS, found[start:], strict=False)) for start in (0, len(INTERVENTIONS)))
    scaled = dict(zip(factors, found[2 * len(INTERVENTIONS) :], strict=True))
    return Interventions(
        tokens=norms["none"].tokens,
        cross_entropy={name: means.means() for name, means in losses.items()},
        norm={name: means.means() for name, means in norms.items()},
        readout_scaling={factor: means.means() for factor, means in scaled.items()},
    )


def _of_batch(model: Looped, window: Window, num_loops: int, factors: Sequence[float]) -> list[Sums]:
    """Return the sums of every intervention's losses, of its norms, and of the losses of every factor."""
    inputs, labels, counted, _ = window
    losses, norms = ({name: LoopMeans() for name in INTERVENTIONS} for _ in range(2))
    scaled = [LoopMeans() for _ in factors]
    call = Call(model, inputs)
    read, first = Reads(call).readings["trained"], call.step(call.embed(), 0)
    for name, change in INTERVENTIONS.items():
        for k, z in enumerate(_changed_states(call, first, num_loops, change)):
            losses[name].add(k, read(z, k, labels), counted)
            norms[name].add(k, norm(z), counted)
            if name == "none":
                for factor, means in zip(factors, scaled, strict=True):
                    means.add(k, read(factor * z, k, labels), counted)
    return [means.sums() for means in (*losses.values(), *norms.values(), *scaled)]


def _changed_states(
    call: Call, first: State, num_loops: int, change: Callable[[State, State, State], State]
) -> Iterable[State]:
    """Yield the states of every loop; each is changed before it is read out and carried on."""
    z = first
    yield z
    for k in range(1, num_loops):
        before = z
        z = change(call.step(call.carry(before, k - 1), k), before, first)
        yield z
