"""Modules of torch as libraries leave them: wrapped, hooked, offloaded, called again in a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers.utils import logging


def does_more_than_its_class(module: nn.Module) -> bool:
    """Return whether hooks, or a forward of its own as accelerate's offloading puts there, go with a module's call."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in vars(module) or any(hooks)


def holds_numbers_alone(weight: Tensor) -> bool:
    """Return whether a tensor is torch's own kind, or a fake one, which plans are made with, and lies somewhere."""
    return type(weight) in (nn.Parameter, Tensor, FakeTensor) and not weight.is_meta


_ELSEWHERE: list[str] = []  # the kind of device that `kernels_of` asks for


@contextmanager
def kernels_of(device: str) -> Iterator[None]:
    """Choose kernels as on a kind of device, wherever the tensors are: a plan for a GPU is made without one."""
    _ELSEWHERE.append(device)
    try:
        yield
    finally:
        _ELSEWHERE.pop()


def kernel_device(x: Tensor) -> str:
    """Return the kind of device whose kernels a tensor is computed with."""
    return _ELSEWHERE[-1] if _ELSEWHERE else x.device.type


def execution_device(model: nn.Module) -> torch.device:
    """Return where a model computes: where its weights lie, or where accelerate's offloading brings them to."""
    for module in model.modules():
        hook = vars(module).get("_hf_hook")  # of hundreds of modules: torch's `getattr` takes ten times as long
        told = getattr(hook, "execution_device", None)
        if told is not None:
            return torch.device(told)
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def in_backward() -> bool:
    """Return whether this thread is in a backward pass, where gradient checkpointing runs forwards again."""
    return torch._C._current_graph_task_id() != -1


def untransformed(z: Tensor) -> Tensor:
    """Return the tensor inside what the transforms of torch.func put around it, mapped dimensions in front."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(z):
        mapped = functorch.maybe_get_bdim(z) if functorch.is_batchedtensor(z) else None
        z = functorch.get_unwrapped(z)
        z = z if mapped is None else z.movedim(mapped, 0)
    return z


def modules_by_all_names(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module by every name that leads to it: `named_modules` leaves out all but the first."""

    def below(module: nn.Module, name: str, above: tuple[nn.Module, ...]) -> Iterator[tuple[str, nn.Module]]:
        yield name, module
        for part, child in module._modules.items():
            if child is not None and child not in above:
                yield from below(child, f"{name}.{part}" if name else part, (*above, child))

    return below(model, "", (model,))


def wrapped_model(model: Any) -> Any:
    """Return the model inside what torch.compile, DistributedDataParallel and PEFT put around it; others as they are.

    PEFT's adapters are layers inside that model. Those of prompt learning are not: such a model is returned as it is.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "get_base_model") and not model.active_peft_config.is_prompt_learning:
            model = model.get_base_model()
        else:
            return model


def is_of_a_compiler(error: BaseException) -> bool:
    """Return whether torch.compile raised an error, which then speaks of its own code."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def warn_once(sentence: str) -> None:
    """Say this in transformers' log, once in a process."""
    logging.get_logger(__name__).warning_once(sentence)
