"""Training with weights, gradients and optimizer state shared out among processes (torch's FSDP2).

What is saved is what one process would have saved: a checkpoint says nothing of how many wrote it, and any number of
processes goes on from it, shared out or not.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: Any) -> Any:
    """Return a tensor put together again if it is shared out, anything else as it is. Every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def share_of(value: Tensor) -> Tensor:
    """Return this process's share of a tensor, all of one that is not shared out."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return the weights under their names, on the host, in the processes that `keep` them; all of them have to ask.

    Weights of two names are one tensor, so that they are saved once.
    """
    found: dict[int, Tensor] = {}
    weights = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in found:
            put_together = whole(value.detach())
            found[id(value)] = put_together.cpu() if keep else torch.empty(0)
        weights[name] = found[id(value)]
    return weights if keep else {}


def share_out(model: nn.Module, units: Iterable[nn.Module], device: torch.device, processes: int) -> None:
    """Leave each process its share of the weights. `units` are gathered one by one, the rest with the whole model.

    A unit stays gathered from its first use in a forward pass to its first in the backward pass: a looped layer is then
    sent K times a step, not 2K.
    """
    mesh = init_device_mesh(device.type, (processes,))
    for unit in units:
        fully_shard(unit, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    model.register_load_state_dict_pre_hook(_share_weights)


def _share_weights(model: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, weight in model.state_dict(keep_vars=True).items():
        if (key := prefix + name) in weights:
            weights[key] = _like(weights[key], weight)


def _share_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return a saved state of whole tensors with each parameter's as its parameter is."""
    numbers = (number for group in saved["param_groups"] for number in group["params"])
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    state = {
        number: {name: _like(value, parameter) for name, value in saved["state"].get(number, {}).items()}
        for number, parameter in zip(numbers, parameters, strict=True)
    }
    return {**saved, "state": {number: values for number, values in state.items() if values}}


def _like(value: Any, model: Tensor) -> Any:
    """Return a whole tensor shared out as another of its shape is: each process cuts its own share."""
    if not isinstance(model, DTensor) or not isinstance(value, Tensor) or value.shape != model.shape:
        return value
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def _to_save(value: Any, keep: bool) -> Any:
    """Return a value put together on the host where it is saved, None elsewhere; all processes have to ask."""
    if not isinstance(value, DTensor):
        return value
    put_together = whole(value)
    return put_together.cpu() if keep else None


class ShardedTraining:
    """Mixin of transformers' Trainer that can share its model out, whatever the devices are.

    accelerate shares out on accelerators only, and trains whole models on a CPU without a word; here one way serves
    both, so that a test of it is a test of what runs.
    """

    args: Any
    accelerator: Any
    optimizer: Any
    model: Any
    shared_out = False
    _takes_whole = False

    def share_out(self, units: Iterable[nn.Module]) -> None:
        """Share the model out; it is not wrapped a second time, but keeps accelerate's autocast."""
        share_out(self.model, units, self.args.device, self.args.world_size)
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.shared_out = True

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Return the weights in the process that saves them, None where each has them anyway; all have to ask."""
        return whole_weights(self.model, self.args.should_save) if self.shared_out else None

    def weights_are_finite(self) -> bool:
        """Return whether every weight is; all processes ask, and all are told the same."""
        shares = [share_of(p.detach()) for p in self.model.parameters()]
        # the largest of them: a sum of squares may overflow
        largest = nn.utils.get_total_norm([share for share in shares if share.numel()], norm_type=math.inf)
        finite = torch.isfinite(largest).float()
        if self.shared_out:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make the optimizer, which takes up states that were saved whole."""
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self.shared_out and not self._takes_whole:
            optimizer.register_load_state_dict_pre_hook(_share_state)
            self._takes_whole = True
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, once."""
        weights = self.whole_weights()
        if weights is None:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        elif self.args.should_save:
            self._save(output_dir or self.args.output_dir, state_dict=weights)  # type: ignore[attr-defined]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with self._whole_state():
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]

    @contextmanager
    def _whole_state(self) -> Iterator[None]:
        """Have the optimizer's state be what one process would have; all processes put it together, one saves it."""
        if not self.shared_out:
            yield
            return
        saved = self.optimizer.state_dict()
        keep = self.args.should_save
        state = {n: {k: _to_save(v, keep) for k, v in values.items()} for n, values in saved["state"].items()}
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate's, around torch's
        hook = optimizer.register_state_dict_post_hook(lambda _, now: {**now, "state": state})
        try:
            yield
        finally:
            hook.remove()
