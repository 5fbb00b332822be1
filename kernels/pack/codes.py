"""Single codes out of a block's bytes, inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl


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
