"""Where a page's groups lie, inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def group_of(states, row, tokens, size, s_layer, s_head, s_token, GROUPS: tl.constexpr,
           HEADS: tl.constexpr):  # fmt: skip
    """Where a head's group begins, and its tokens."""
    group = row // HEADS
    begin = group % GROUPS * size
    base = states + group // GROUPS * s_layer + row % HEADS * s_head + begin * s_token
    return base, tl.where(group % GROUPS == GROUPS - 1, tokens - begin, size)


@triton.jit
def tile_of(base, token, there, stride, channel):
    """Float32 states `[tokens, channels]`, zero where there is no token."""
    spot = base + token.to(tl.int64)[:, None] * stride + channel[None, :]
    return tl.load(spot, mask=there, other=0.0).to(tl.float32)
