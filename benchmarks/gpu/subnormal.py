"""Subnormal fp16 numbers through the matrix unit."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def products(device: torch.device) -> Tensor:
    """Float32 `[16, 16]`: i * 2^-24 for i = 0…255, each times one."""
    words = torch.arange(256, dtype=torch.int16, device=device)
    out = torch.full((16, 16), float("nan"), device=device)
    _products[(1,)](words, out, num_warps=1)
    return out


@triton.jit
def _products(words, out):
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    numbers = tl.load(words + row * 16 + column).to(tl.float16, bitcast=True)
    ones = tl.where(row == column, 1.0, 0.0).to(tl.float16)
    tl.store(out + row * 16 + column, tl.dot(numbers, ones))
