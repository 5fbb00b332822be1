"""Rotary embedding inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotated(
    states, offsets, angles, there, cols, cos, sin, D: tl.constexpr, ROTARY: tl.constexpr
):  # fmt: skip
    """Rows `[M, D]` of `states`, rotated; channels past ROTARY pass unchanged.

    offsets: int64 `[M]`, where rows begin. angles: `[M]`, rows of the tables `[n, ROTARY]`.
    there: bool `[M]`, which rows there are; the others are zeros.
    """
    inside = there[:, None] & (cols < D)[None, :]
    own = tl.load(states + offsets[:, None] + cols[None, :], mask=inside, other=0.0)
    if ROTARY == 0:
        return own
    turned = there[:, None] & (cols < ROTARY)[None, :]
    left = cols < ROTARY // 2
    partner = tl.where(left, cols + ROTARY // 2, cols - ROTARY // 2)
    other = tl.load(states + offsets[:, None] + partner[None, :], mask=turned, other=0.0)
    table = angles[:, None] * ROTARY + cols[None, :]
    c = tl.load(cos + table, mask=turned, other=1.0)
    s = tl.load(sin + table, mask=turned, other=0.0)
    out = own.to(tl.float32) * c + other.to(tl.float32) * tl.where(left[None, :], -s, s)
    return out.to(states.dtype.element_ty)
