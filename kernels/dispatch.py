"""Which implementation of a kernel runs on a tensor: Triton on NVIDIA GPUs, torch elsewhere.

Torch is the documented fallback, never an error: on CPUs and Apple GPUs, on NVIDIA GPUs older than
Ampere, on AMD GPUs (not tried), without Triton, for float64, and for head sizes that are not a
multiple of 16.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OLDEST = (8, 0)  # compute capability: bfloat16 on the matrix unit
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def runs_triton(tensor: Tensor, head_dim: int | None = None) -> bool:
    """Whether the Triton kernels take this tensor (of keys or values of this head size)."""
    return (
        has_triton(tensor) and tensor.dtype in _DTYPES and (head_dim is None or head_dim % 16 == 0)
    )


def has_triton(tensor: Tensor) -> bool:
    """Whether Triton kernels run where this tensor is."""
    return tensor.is_cuda and why_not(tensor.device) is None


def on_device(tensor: Tensor) -> AbstractContextManager[None]:
    """Launches inside go to this tensor's GPU; Triton would use the thread's current one."""
    return torch.cuda.device_of(tensor)


def why_not(device: torch.device) -> str | None:
    """Why kernels on this device run in torch; None where they run in Triton."""
    if device.type != "cuda":
        return "not a CUDA device"
    return _why_not_cuda(device.index if device.index is not None else torch.cuda.current_device())


@cache
def _why_not_cuda(index: int) -> str | None:
    if torch.version.hip is not None:
        return "AMD GPUs are not supported yet"
    if find_spec("triton") is None:
        return "triton is not installed"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        return "compute capability {}.{} is below {}.{}".format(*capability, *OLDEST)
    return None
