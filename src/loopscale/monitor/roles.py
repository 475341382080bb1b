"""Targets: which modules make the states, which are a loop each, and which are around them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from loopscale.errors import InputError
from loopscale.hf import wrapped_model
from loopscale.model.native import is_native
from loopscale.monitor.names import clean, find_modules


@final
@dataclass(frozen=True)
class Targets:
    """Modules by name: `states` make the states, each of `blocks` is called once per loop, `around` contain both.

    calls: states of one forward, where no module around them is called.
    """

    states: Mapping[str, nn.Module]
    blocks: Mapping[str, nn.Module]
    around: Mapping[str, nn.Module]
    calls: int | None


def find_targets(model: Any, state: str | None, loops: int | str | None) -> Targets:
    """Return the modules that `state` and `loops` name. Raises `InputError` where there are none, or nothing is said.

    Without either, a model of this library is watched where the state of a loop comes out: its relaxation.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"watch takes a torch module, not a {type(model).__name__}.")
    if isinstance(model, nn.DataParallel):
        raise InputError("watch cannot follow the replicas of DataParallel: start one process per GPU (torchrun).")
    if isinstance(loops, int) and loops < 1:
        raise InputError(f"loops is {loops}: a forward has at least 1 loop; or give the name of a loop's block.")
    blocks = find_modules(model, loops, "loops") if isinstance(loops, str) else {}
    if state is not None:
        states = find_modules(model, state, "state")
    elif blocks:
        states = blocks
    else:
        states = _own(model)
    if blocks and not any(_holds(block, module) for module in states.values() for block in blocks.values()):
        raise InputError(
            f"no module that state={state!r} matches ({next(iter(states))}, ...) is inside a block that "
            f"loops={loops!r} matches ({next(iter(blocks))}, ...): name the block that is called once per loop."
        )
    for name, module in {**states, **blocks}.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"'{name}' is compiled by TorchScript, which cannot be listened to: use torch.compile.")
    targets = [*states.values(), *blocks.values()]
    around = {
        clean(name): module
        for name, module in model.named_modules()
        if module not in targets
        and not isinstance(module, torch.jit.ScriptModule)
        and any(_holds(module, target) for target in targets)
    }
    around[""] = model  # the wrapper itself, whose hooks no compiler sees
    return Targets(states, blocks if blocks != states else {}, around, loops if isinstance(loops, int) else None)


def _own(model: nn.Module) -> Mapping[str, nn.Module]:
    inner = wrapped_model(model)
    if not is_native(inner):
        raise InputError(
            f"which module of this {type(inner).__name__} ends a loop? Say so by state=, a regular expression of its "
            "name in named_modules(), for instance state=r'core\\.layers\\.7'."
        )
    return find_modules(model, r"model\.relaxation", "state")


def _holds(outer: nn.Module, module: nn.Module) -> bool:
    return any(part is module for part in outer.modules())
