"""States times an orthonormal matrix, a few channels at a time, inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl

_DEPTH = tl.constexpr(16)  # channels at a time: the matrix would not fit in registers


@triton.jit
def turned(
    at, there, channels, shift, matrix, WIDTH: tl.constexpr, TILE: tl.constexpr,
    ORDERED: tl.constexpr, SHIFTED: tl.constexpr, BY_CHANNEL: tl.constexpr,
):  # fmt: skip
    """Float32 `[TILE, WIDTH]`, zero where there is no token.

    at: pointers `[TILE]` to tokens. channels: pointer to the channels of the slots, where ORDERED.
    shift: pointer to what is taken off first, where SHIFTED: of a channel, or of a slot.
    """
    out = tl.zeros([TILE, WIDTH], tl.float32)
    column = tl.arange(0, WIDTH)
    for first in range(0, WIDTH, _DEPTH):
        slot = first + tl.arange(0, _DEPTH)
        channel = slot
        if ORDERED:
            channel = tl.load(channels + slot).to(tl.int32)
        x = tl.load(at[:, None] + channel[None, :], mask=there, other=0.0).to(tl.float32)
        if SHIFTED:
            own = tl.load(shift + (channel if BY_CHANNEL else slot)).to(tl.float32)
            x = tl.where(there, x - own[None, :], 0.0)
        turn = tl.load(matrix + slot[:, None] * WIDTH + column[None, :])
        out = tl.dot(x, turn, out, input_precision="tf32x3")
    return out
