"""Rounding inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl

_ADDED = tl.constexpr(12582912.0)  # 1.5 * 2^23: what is added to it keeps no fraction


@triton.jit
def nearest(x):
    """The whole number nearest to a float32 below 2^22 in size; of two, the even one."""
    return (x + _ADDED) - _ADDED
