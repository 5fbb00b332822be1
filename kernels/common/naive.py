"""What several kernels share, in torch: rotation, joined attention, places, staged copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LOWEST = -1e30  # for minus infinity, where one is taken from another
_ALIGNED = 16  # bytes


def rotate(states: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate `[..., n, D]` by cosines and sines `[n, R]`; channels past R pass unchanged."""
    cos, sin = table
    width = cos.shape[-1]
    turned = states[..., :width].to(cos.dtype)
    left, right = turned.chunk(2, dim=-1)
    out = turned * cos + torch.cat([-right, left], dim=-1) * sin
    out = out.to(states.dtype)
    return out if width == states.shape[-1] else torch.cat([out, states[..., width:]], dim=-1)


def join(near: Tensor, near_lse: Tensor, far: Tensor, far_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Two attentions over different tokens as one; out `[1, H, n, D]`, log-sum-exp `[1, H, n]`."""
    lse = torch.logaddexp(near_lse, far_lse)
    least = lse.clamp_min(LOWEST)
    near = near.float() * (near_lse - least).exp()[..., None]
    return near + far.float() * (far_lse - least).exp()[..., None], lse


def places(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every token's block and its place in that block, int64 `[sum(lengths)]` each."""
    count = np.array(lengths, dtype=np.int64)
    block = np.repeat(np.arange(len(count)), count)
    return block, np.arange(len(block)) - (np.cumsum(count) - count)[block]


def staged(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays on a device, as parts of one piece of memory; the host does not wait for a GPU."""
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
