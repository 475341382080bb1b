"""Torch's modes that see every operation, what they hand over, and the kernels that stand for those of a GPU."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves

_aten = torch.ops.aten
#: A CPU's attention kernels, which stand for a GPU's in a plan, with those of a GPU that compute the same.
CPU_ATTENTION: Mapping[Any, Any] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _aten._scaled_dot_product_flash_attention_backward,
}


def kernel_of(operation: Any) -> Any:
    """Return the kernel of an operation, whatever types it was called with."""
    return operation._overloadpacket


def storage_key(storage: torch.UntypedStorage) -> int:
    """Return what tells a storage from others while it is alive."""
    return storage._cdata


def fused_rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """Apply a norm as a GPU's kernel does, which keeps its input and one number per token."""
    return _aten._fused_rms_norm(x, list(norm.normalized_shape), norm.weight, norm.eps)[0]
