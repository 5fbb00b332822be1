"""Fold what groups of tokens share into the query: scale, centre, order and transform.

Per group and key head the rows of queries become fp16 factors of the codes, in the order in which
the codes' planes lie in 16-bit words, with a multiplier and an offset of the scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.pack.form import WIDE_LEVELS, Form
from mmkv.kernels.packed_attention.history import Compact
from mmkv.kernels.packed_attention.naive import slot_bits

_GROUPS = 8  # in one program: the transform's matrix is read once for all of them
_HALF_WIDE = tl.constexpr((WIDE_LEVELS - 1) / 2)


@dataclass(frozen=True, slots=True)
class Queries:
    """Some queries of every key head.

    Attributes:
        states: `[H_kv, m, D]`, contiguous.
        rotation: cosines and sines `[n, R]` of the n tokens that they belong to, None where they
            are rotated.
        first: number of the first row; row r belongs to token r % n.
    """

    states: Tensor
    rotation: tuple[Tensor, Tensor] | None
    first: int
    n: int


def fold(
    queries: Queries, compact: Compact, form: Form, rows: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Queries in the form that the codes of P groups are multiplied by.

    Args:
        queries: taken in Z tiles of `rows`, 8 or 16. scale: of the scores.

    Returns:
        fp16 `[Z, P, H_kv, D, rows]`, channels plane by plane; float32 `[Z, P, H_kv, 2, rows]`, the
        multiplier and the offset of the scores.
    """
    query, rotation = queries.states, queries.rotation
    kv_heads, count, dim = query.shape
    groups, tiles = compact.words.shape[0], triton.cdiv(count, rows)
    folded = query.new_empty((tiles, groups, kv_heads, dim, rows), dtype=torch.float16)
    line = folded.new_empty((tiles, groups, kv_heads, 2, rows), dtype=torch.float32)
    cos, sin = rotation if rotation is not None else (query, query)
    matrix = form.matrix(dim, query.device)
    _fold[(triton.cdiv(groups, _GROUPS), kv_heads, tiles)](
        query, compact.words, compact.top, _or(compact.order, compact.words),
        _or(compact.exact, compact.top), _or(matrix, query), cos, sin, folded, line, groups, count,
        queries.first, queries.n, scale, ROTARY=0 if rotation is None else cos.shape[1],
        HEADS=kv_heads, D=dim, ROWS=rows, WIDE=form.wide, HALF=(form.levels - 1) / 2,
        BITS=slot_bits(form), TRANSFORM=matrix is not None, LISTED=compact.exact is not None,
        GROUPS=_GROUPS, num_warps=4, num_stages=1,
    )  # fmt: skip
    return folded, line


@triton.jit
def affine(words, top, exact, row, channels, D: tl.constexpr, LISTED: tl.constexpr):
    """Scale and centre of channels of one group and head, and whether they are constant."""
    word = tl.load(words + row * D + channels).to(tl.int32) & 0xFFFF
    code, high = word & 63, word >> 6
    ratio = tl.exp2((code.to(tl.float32) - 63.0) / 6.0)
    scale = tl.where(code > 0, tl.load(top + row) * ratio, 0.0)
    centre = (high - 512).to(tl.float32) * (scale * 0.125)
    if LISTED:
        centre = tl.where(high <= 1, tl.load(exact + row * D + channels), centre)
    return scale, centre, high == 1


@triton.jit
def _slots(
    at, here, cos, sin, angle, words, top, order, exact, row, factor, slots,
    D: tl.constexpr, ROTARY: tl.constexpr, ORDER: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """Queries `[M, n]` of these slots, their scales, and what centres add to the scores."""
    channel = slots
    if ORDER:
        channel = tl.load(order + row * D + slots).to(tl.int32)
    q = tl.load(at + channel[None, :], mask=here, other=0.0).to(tl.float32)
    if ROTARY > 0:  # channels past it pass unchanged
        left = channel < ROTARY // 2
        partner = tl.where(left, channel + ROTARY // 2, channel - ROTARY // 2)
        turned = here & (channel < ROTARY)[None, :]
        other = tl.load(at + partner[None, :], mask=turned, other=0.0).to(tl.float32)
        table = angle[:, None] * ROTARY + channel[None, :]
        c = tl.load(cos + table, mask=turned, other=1.0)
        s = tl.load(sin + table, mask=turned, other=0.0)
        q = q * c + other * tl.where(left[None, :], -s, s)
        q = q.to(at.dtype.element_ty).to(tl.float32)  # as rotated queries are kept elsewhere
    q *= factor
    scale, centre, constant = affine(words, top, exact, row, channel, D, LISTED)
    return tl.where(constant[None, :], 0.0, q), scale, tl.sum(q * centre[None, :], 1)


@triton.jit
def _place(
    folded, own, slots, rows, D: tl.constexpr, ROWS: tl.constexpr, BITS: tl.constexpr
):  # fmt: skip
    """Write factors where the words of codes have them: byte b of a row, slot j of the byte."""
    byte, slot = slots % (D * BITS // 8), slots // (D * BITS // 8)
    place = (byte % 2 * (8 // BITS) + slot) * (D * BITS // 16) + byte // 2
    out = own * tl.exp2(-(BITS * slot).to(tl.float32))[None, :]
    at = folded + place[None, :] * ROWS + rows[:, None]
    tl.store(at, out.to(tl.float16), mask=(rows < ROWS)[:, None] & (slots < D)[None, :])


@triton.jit
def _fold(
    query, words, top, order, exact, matrix, cos, sin, folded, line, groups, count, before, n,
    factor, ROTARY: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr, HALF: tl.constexpr, BITS: tl.constexpr, TRANSFORM: tl.constexpr,
    LISTED: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    NARROW: tl.constexpr = D - WIDE
    kv, tile = tl.program_id(1), tl.program_id(2)
    rows = tl.arange(0, 16)  # the matrix unit's least
    asked = tile * ROWS + rows
    here = ((rows < ROWS) & (asked < count))[:, None]
    at = query + (kv * count + asked)[:, None] * D
    angle = (before + asked) % n
    narrow = WIDE + tl.arange(0, NARROW)
    if TRANSFORM:
        line_ = tl.arange(0, NARROW)
        turn = tl.load(matrix + line_[:, None] * NARROW + line_[None, :])
    first = tl.program_id(0) * GROUPS
    for group in range(first, tl.minimum(first + GROUPS, groups)):
        row = (group * HEADS + kv).to(tl.int64)
        own, scale, offset = _slots(
            at, here, cos, sin, angle, words, top, order, exact, row, factor, narrow, D, ROTARY,
            WIDE > 0, LISTED,
        )  # fmt: skip
        if TRANSFORM:
            own = tl.dot(own, turn, input_precision="tf32x3")
        own *= scale[None, :]
        offset -= HALF * tl.sum(own, 1)
        peak = tl.max(tl.abs(own), 1)
        if WIDE > 0:
            wide = tl.arange(0, WIDE)
            more, scale, added = _slots(
                at, here, cos, sin, angle, words, top, order, exact, row, factor, wide, D, ROTARY,
                True, LISTED,
            )  # fmt: skip
            more *= scale[None, :]
            offset += added - _HALF_WIDE * tl.sum(more, 1)
            peak = tl.maximum(peak, tl.max(tl.abs(more), 1))
        # powers of two keep fp16 far from both its ends
        power = tl.floor(tl.log2(tl.maximum(peak, 1e-30)))
        up = tl.exp2(10.0 - power)[:, None]
        spot = (tile * groups * HEADS + row) * ROWS
        _place(folded + spot * D, own * up, narrow, rows, D, ROWS, BITS)
        if WIDE > 0:
            _place(folded + spot * D, more * up, wide, rows, D, ROWS, BITS)
        pair = line + spot * 2 + rows
        tl.store(pair, tl.exp2(power + 14.0), mask=rows < ROWS)
        tl.store(pair + ROWS, offset, mask=rows < ROWS)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor
