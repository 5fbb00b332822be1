"""Codes in 16-bit words as fp16 numbers, without converting them.

A word holds a low and a high byte of codes. Masked to one code, its bits read as fp16 are the
subnormal number code * 2^(shift - 24): no conversion, no subtraction. What is multiplied by it is
scaled down by 2^shift beforehand, and the product up by 2^24 afterwards.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def high_byte(words, ASM: tl.constexpr):
    """Words whose low byte is the former high one; `plane` masks away anything above it."""
    if ASM:
        return tl.inline_asm_elementwise(
            "shr.b32 $0, $1, 8;", "=r,r", [words], dtype=tl.int16, is_pure=True, pack=2
        )
    return words >> 8


@triton.jit
def plane(words, SLOT: tl.constexpr, BITS: tl.constexpr, ASM: tl.constexpr):
    """Slot SLOT of the low bytes, fp16: code * 2^(BITS * SLOT - 24)."""
    if not ASM:
        return (words & (((1 << BITS) - 1) << (BITS * SLOT))).to(tl.float16, bitcast=True)
    # two words in a register, one instruction for both
    if BITS == 4:
        if SLOT == 0:
            return tl.inline_asm_elementwise(
                "and.b32 $0, $1, 0x000f000f;", "=r,r", [words], tl.float16, is_pure=True, pack=2
            )
        return tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x00f000f0;", "=r,r", [words], tl.float16, is_pure=True, pack=2
        )
    if SLOT == 0:
        return tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x00030003;", "=r,r", [words], tl.float16, is_pure=True, pack=2
        )
    if SLOT == 1:
        return tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x000c000c;", "=r,r", [words], tl.float16, is_pure=True, pack=2
        )
    if SLOT == 2:
        return tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x00300030;", "=r,r", [words], tl.float16, is_pure=True, pack=2
        )
    return tl.inline_asm_elementwise(
        "and.b32 $0, $1, 0x00c000c0;", "=r,r", [words], tl.float16, is_pure=True, pack=2
    )
