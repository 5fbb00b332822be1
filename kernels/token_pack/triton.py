"""Scales per token on a GPU: a program takes some tokens of one head from states to bytes, or back.

Blocks of any lengths go through one launch. What a kernel needs to know of a token (its block, the
block's length, the token's place in it) is one table, made from the lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.common.naive import places
from mmkv.kernels.pack.common import code_at
from mmkv.kernels.pack.form import BITS, Form
from mmkv.kernels.token_pack.naive import block_bytes, group_width

_ELEMENTS = 4096  # in a program
# added to a small number it leaves a whole one, rounded half to even, in the lowest bits; the other
# bits, those of the float 0x4B400000, are taken off once from a sum of four at every eighth bit
_ROUND = tl.constexpr(1.5 * 2**23)
_REST = tl.constexpr(2**32 - (0x4B400000 * 0x01010101) % 2**32)


def pack_tokens(states: Tensor, lengths: Sequence[int], form: Form) -> Tensor:
    """As `naive.pack_tokens`, bit for bit."""
    if states.stride(3) != 1:
        states = states.contiguous()
    layers, heads, total, dim = states.shape
    sizes = [sum(block_bytes(form, heads, length, dim)) for length in lengths]
    out = torch.empty(layers, sum(sizes), dtype=torch.uint8, device=states.device)
    if not out.numel():
        return out
    at = torch.from_numpy(np.cumsum([0, *sizes])).to(states.device)
    shape = _shape(form, heads, dim)
    row = dim * BITS[form.levels] // 8
    _pack_tokens[(triton.cdiv(total, shape["TILE"]), heads, layers)](
        states, _where(lengths, states.device), at, out.view(torch.float16), out.view(torch.int32),
        total, *states.stride()[:3], out.stride(0), **shape,
        WORDS=row // 4, PADDED=triton.next_power_of_2(row // 4),
        num_warps=4, num_stages=1, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def unpack_tokens(
    data: Tensor, at: Tensor, lengths: Sequence[int], form: Form, out: Tensor
) -> Tensor:
    """As `naive.unpack_tokens`, bit for bit."""
    if out.numel():
        launcher(data, at, lengths, form, out)()
    return out


def launcher(
    data: Tensor, at: Tensor, lengths: Sequence[int], form: Form, out: Tensor
) -> Callable[[], object]:
    """The launch, with everything that the kernel reads in place."""
    heads, total, dim = out.shape
    where, shape = _where(lengths, data.device), _shape(form, heads, dim)
    assert out.stride(2) == 1
    return lambda: _unpack_tokens[(triton.cdiv(total, shape["TILE"]), heads)](
        data, where, at, out, total, *out.stride()[:2], **shape,
        num_warps=4, num_stages=1, enable_fp_fusion=False,
    )  # fmt: skip


def _where(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Every token's block, the block's length and its place there, int32 `[3, N]`."""
    block, place = places(lengths)
    rows = np.stack([block, np.array(lengths)[block], place]).astype(np.int32)
    return torch.from_numpy(rows).to(device)


def _shape(form: Form, heads: int, dim: int) -> dict[str, int]:
    """What both kernels are compiled for."""
    width = group_width(dim)
    columns = triton.next_power_of_2(width)
    groups = triton.next_power_of_2(dim // width)
    return {
        "HEADS": heads, "D": dim, "LEVELS": form.levels, "WIDTH": width, "COLUMNS": columns,
        "GROUPS": groups, "TILE": max(1, _ELEMENTS // (groups * columns)),
    }  # fmt: skip


@triton.jit
def _places(where, at, total, HEADS: tl.constexpr, TILE: tl.constexpr):
    """A program's tokens: number, presence, block's first byte, its length, row in it."""
    token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = token < total
    block = tl.load(where + token, mask=there, other=0)
    length = tl.load(where + total + token, mask=there, other=1)
    place = tl.load(where + 2 * total + token, mask=there, other=0)
    base = tl.load(at + block, mask=there, other=0)
    return token.to(tl.int64), there, base, length, tl.program_id(1) * length + place


@triton.jit
def _pack_tokens(
    states, where, at, halves, words, total, s_layer, s_head, s_token, row_bytes,
    HEADS: tl.constexpr, D: tl.constexpr, LEVELS: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, GROUPS: tl.constexpr, TILE: tl.constexpr, WORDS: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    EACH: tl.constexpr = D // WIDTH  # scales of a token
    COUNT: tl.constexpr = D // (4 * WORDS)  # codes in a byte
    token, there, base, length, row = _places(where, at, total, HEADS, TILE)
    base += tl.program_id(2).to(tl.int64) * row_bytes
    group, column, word = tl.arange(0, GROUPS), tl.arange(0, COLUMNS), tl.arange(0, PADDED)
    channel = group[:, None] * WIDTH + column[None, :]
    own = (group < EACH)[None, :, None] & (column < WIDTH)[None, None, :]
    spot = states + tl.program_id(2).to(tl.int64) * s_layer
    spot += tl.program_id(1).to(tl.int64) * s_head
    spot += token[:, None, None] * s_token + channel[None, :, :]
    x = tl.load(spot, mask=there[:, None, None] & own, other=0.0).to(tl.float32)
    least, largest = x, x  # [TILE, GROUPS, COLUMNS]
    if COLUMNS > WIDTH:
        least, largest = tl.where(own, x, float("inf")), tl.where(own, x, float("-inf"))
    low, high = tl.min(least, 2) + 0.0, tl.max(largest, 2)
    scale = tl.div_rn(high - low, tl.full([TILE, GROUPS], LEVELS - 1, tl.float32)).to(tl.float16)
    low = low.to(tl.float16)
    step, one = scale.to(tl.float32), tl.full([TILE, GROUPS], 1.0, tl.float32)
    inverse = tl.where(step > 0, tl.div_rn(one, tl.where(step > 0, step, one)), 0.0)
    code = (x - low.to(tl.float32)[:, :, None]) * inverse[:, :, None]
    code = tl.minimum(tl.maximum(code, 0.0), LEVELS - 1.0) + _ROUND
    number = base // 2 + row * EACH
    has = there[:, None] & (group < EACH)[None, :]
    tl.store(halves + number[:, None] + group[None, :], scale, mask=has)
    number += HEADS * length * EACH
    tl.store(halves + number[:, None] + group[None, :], low, mask=has)
    # four neighbours at a time: a word of bytes for each of a byte's codes
    code = tl.reshape(code.to(tl.int32, bitcast=True), (TILE, GROUPS * COLUMNS // 4, 4))
    quad = tl.sum(code << (tl.arange(0, 4) * 8)[None, None, :], 2) + _REST
    if GROUPS * COLUMNS == D:
        quad = tl.reshape(quad, (TILE, COUNT, WORDS))
        packed = tl.sum(quad << (tl.arange(0, COUNT) * (8 // COUNT))[None, :, None], 1)
    else:
        packed = tl.zeros([TILE, PADDED], tl.int32)
        for j in tl.static_range(COUNT):
            slot = tl.minimum(j * WORDS + word, D // 4 - 1)[None, :]
            slot = tl.gather(quad, tl.broadcast_to(slot, (TILE, PADDED)), 1)
            packed += slot << (8 // COUNT * j)
    start = base // 4 + HEADS * length * EACH + row * WORDS
    inside = there[:, None] & (word < WORDS)[None, :]
    tl.store(words + start[:, None] + word[None, :], packed, mask=inside)


@triton.jit
def _unpack_tokens(
    data, where, at, out, total, out_head, out_token,
    HEADS: tl.constexpr, D: tl.constexpr, LEVELS: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, GROUPS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    EACH: tl.constexpr = D // WIDTH
    token, there, base, length, row = _places(where, at, total, HEADS, TILE)
    group, column = tl.arange(0, GROUPS), tl.arange(0, COLUMNS)
    channel = group[:, None] * WIDTH + column[None, :]
    mine = (group < EACH)[:, None] & (column < WIDTH)[None, :]
    here = there[:, None, None] & mine[None, :, :]
    has = there[:, None] & (group < EACH)[None, :]
    number = base[:, None] + 2 * (row[:, None] * EACH + group[None, :])
    scale = _half_at(data, number, has)[:, :, None]
    low = _half_at(data, number + 2 * HEADS * length[:, None] * EACH, has)[:, :, None]
    code = code_at(
        data, (base + HEADS * length * (4 * EACH))[:, None, None], length[:, None, None],
        row[:, None, None], channel[None, :, :], here, HEADS, D, LEVELS,
    )  # fmt: skip
    states = code.to(tl.float32) * scale + low
    spot = out + tl.program_id(1).to(tl.int64) * out_head
    spot += token[:, None, None] * out_token + channel[None, :, :]
    tl.store(spot, states.to(out.dtype.element_ty), mask=here)


@triton.jit
def _half_at(data, at, here):
    """Float32 of the float16 numbers whose two bytes begin here, wherever that is."""
    first = tl.load(data + at, mask=here, other=0).to(tl.uint16)
    second = tl.load(data + at + 1, mask=here, other=0).to(tl.uint16)
    return (first | (second << 8)).to(tl.float16, bitcast=True).to(tl.float32)
