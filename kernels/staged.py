"""Several small arrays to a device in one copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 16  # bytes


def staged(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays on a device, parts of one piece of memory; nothing waits for a GPU."""
    stops = np.cumsum([-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays]).tolist()
    pinned = device.type == "cuda"
    buffer = torch.empty(stops[-1], dtype=torch.uint8, pin_memory=pinned)
    memory, starts = buffer.numpy(), [0, *stops[:-1]]
    for array, start in zip(arrays, starts, strict=True):
        memory[start : start + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
    there = buffer.to(device, non_blocking=True)
    return [
        there[start : start + array.nbytes]
        .view(torch.from_numpy(array[:0]).dtype)
        .view(array.shape)
        for array, start in zip(arrays, starts, strict=True)
    ]
