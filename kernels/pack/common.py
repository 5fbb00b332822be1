"""What packing's Triton kernels share: rounding, where groups lie, transforms, single codes."""

from __future__ import annotations

import triton
import triton.language as tl

_ADDED = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding a number to it rounds away the fraction
_DEPTH = tl.constexpr(16)  # channels at a time: the matrix would not fit in registers


@triton.jit
def nearest(x):
    """The whole number nearest to a float32 below 2^22 in size; of two, the even one."""
    return (x + _ADDED) - _ADDED


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


@triton.jit
def code_at(
    codes, base, length, row, slot, here,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """Codes int32, zero where `here` is false; arguments of any shapes that go together.

    base: where a plane begins, of a block of `length` tokens. row: head * length + place of the
    token. slot: of WIDTH.
    """
    if LEVELS == 3:
        size = (HEADS * length * WIDTH + 4) // 5  # bytes of the plane
        element = row * WIDTH + slot
        byte = tl.load(codes + base + element % size, mask=here, other=0)
        digit = element // size
        power = tl.where(digit == 1, 3, 1)
        power = tl.where(digit == 2, 9, tl.where(digit == 3, 27, tl.where(digit == 4, 81, power)))
        return byte.to(tl.int32) // power.to(tl.int32) % 3
    BITS: tl.constexpr = 1 if LEVELS == 2 else (2 if LEVELS == 4 else 4)
    BYTES: tl.constexpr = WIDTH * BITS // 8
    byte = tl.load(codes + base + row * BYTES + slot % BYTES, mask=here, other=0).to(tl.int32)
    return (byte >> (slot // BYTES * BITS)) & (LEVELS - 1)
