"""Sums of a step over processes, so that every process has the figures of the whole batch."""

import torch
from torch import distributed

from loopscale.monitor.loop_sums import SUMS, Packed, Tally


def together() -> bool:
    """Return whether several processes train."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def first_process() -> bool:
    """Return whether this process is the one that writes."""
    return not together() or distributed.get_rank() == 0


def reduced(tally: Tally | None, device: torch.device, alone: bool) -> Packed | None:
    """Return what a step's tally holds, over all processes where there are several and it is not to be taken `alone`.

    Otherwise all of them call it, also one that saw no forward. None where nobody saw any.
    """
    own = None if tally is None else tally.packed()
    if alone or not together():
        return own
    place = torch.device("cpu") if distributed.get_backend() == "gloo" else device
    size = torch.tensor([0, 0] if own is None else own[1].shape, device=place)
    distributed.all_reduce(size, distributed.ReduceOp.MAX)
    loops, hidden = size.tolist()
    if not loops:
        return None
    shapes = [(loops, len(SUMS)), (loops, hidden), (loops,), (2,)]
    packed = [torch.zeros(shape, device=place) for shape in shapes]
    for part, mine in zip(packed, own or (), strict=False):
        part[: len(mine)] = mine.to(place, torch.float32)  # this process may have run fewer loops
    added = torch.cat([packed[i].reshape(-1) for i in (0, 1, 3)])
    distributed.all_reduce(added)
    distributed.all_reduce(packed[2], distributed.ReduceOp.MAX)
    sums, energies, visibility = added.split([packed[i].numel() for i in (0, 1, 3)])
    return sums.view(shapes[0]), energies.view(shapes[1]), packed[2], visibility
