"""Quantizing and bit-packing on a GPU: from states to bytes, ternary ones by way of codes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.common.naive import places
from mmkv.kernels.pack.common import turned
from mmkv.kernels.pack.fit import Slots
from mmkv.kernels.pack.form import BITS, WIDE_LEVELS, Form

_WIDE_LEVELS = tl.constexpr(WIDE_LEVELS)
_BYTES = 2048  # of a ternary plane in a program


def quantize(
    states: Tensor, slots: Slots, lengths: Sequence[int], groups: Sequence[int], form: Form
) -> Tensor:
    """Bytes uint8 `[L, B]` of a page's blocks; see `naive.pack`."""
    layers, heads, tokens, dim = states.shape
    matrix = form.matrix(dim, states.device)
    tiles = configs.bits_tiles(dim - form.wide, turned=matrix is not None)
    page = _page(tuple(lengths), tuple(groups), form, heads, dim, tiles.rows, states.device)
    out = states.new_empty((layers, page.nbytes), dtype=torch.uint8)
    ternary, bits = form.levels == 3, BITS.get(form.levels, 8)
    # ternary codes take a byte each at first, in the order in which five are packed into one
    codes = out.new_empty((layers, heads * tokens * dim)) if ternary else out
    _bits[(len(page.tiles), heads, layers)](
        states, states if slots.order is None else slots.order,
        states if matrix is None else matrix, slots.inverse, slots.centre, page.tokens, page.tiles,
        codes, tokens, codes.shape[1], *states.stride()[:3],
        GROUPS=len(groups), HEADS=heads, D=dim, WIDE=form.wide, LEVELS=form.levels, BITS=bits,
        PADDED=triton.next_power_of_2((dim - form.wide) * bits // 8),
        WIDE_PADDED=triton.next_power_of_2(max(1, form.wide // 4)),
        TRANSFORM=matrix is not None, TILE=tiles.rows, num_warps=tiles.warps,
        num_stages=tiles.stages, enable_fp_fusion=False,
    )  # fmt: skip
    if ternary:
        most = -(-heads * max(lengths) * dim // 5)
        _fives[(triton.cdiv(most, _BYTES), len(page.blocks), layers)](
            codes, page.blocks, out, tokens, page.nbytes, HEADS=heads, D=dim, BLOCK=_BYTES,
            num_warps=4,
        )  # fmt: skip
    return out


@dataclass(frozen=True, slots=True)
class _Page:
    """Where a page's tokens and blocks have their bytes.

    Attributes:
        blocks: int32 `[blocks, 3]`, for each block that has tokens: where its bytes begin, its
            number of tokens, and the number of the first.
        tokens: int32 `[3, N]`, for each token: where its block's bytes begin (ternary codes: one
            byte each), the block's number of tokens, and its place among them.
        tiles: int32 `[tiles, 3]`, for each tile: its first token, the one behind its group, and the
            group.
    """

    nbytes: int
    blocks: Tensor
    tokens: Tensor
    tiles: Tensor


@functools.lru_cache(maxsize=32)
def _page(
    lengths: tuple[int, ...], groups: tuple[int, ...], form: Form, heads: int, dim: int,
    tile: int, device: torch.device,
) -> _Page:  # fmt: skip
    """Cached, since the pages of a stream are mostly alike."""
    count = np.array(lengths)
    sizes = np.array([sum(form.plane_bytes(heads, length, dim)) for length in lengths])
    starts, firsts = np.cumsum(sizes) - sizes, np.cumsum(count) - count
    blocks = np.stack([starts, count, firsts], axis=1)
    block, place = places(lengths)
    bases = heads * dim * firsts if form.levels == 3 else starts
    tokens = np.stack([bases[block], count[block], place])
    stops = np.cumsum(groups)
    tiles = [
        (first, stop, group)
        for group, (stop, size) in enumerate(zip(stops, groups, strict=True))
        for first in range(stop - size, stop, tile)
    ]
    arrays = (blocks[count > 0], tokens, np.array(tiles))
    tables = [torch.from_numpy(array.astype(np.int32)).to(device) for array in arrays]
    return _Page(int(sizes.sum()), *tables)


@triton.jit
def _code(x, centre, inverse, LEVELS: tl.constexpr):
    """The level that a number is nearest to, int32."""
    number = (x - centre) * inverse + LEVELS / 2
    return tl.minimum(tl.maximum(number, 0.0), LEVELS - 1.0).to(tl.int32)


@triton.jit
def _plane(
    x, order, inverse, centre, row, at, there, start, out, BYTES: tl.constexpr,
    PADDED: tl.constexpr, LEVELS: tl.constexpr, BITS: tl.constexpr, ORDERED: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Write some slots of `[TILE]` tokens, `BYTES` each; `at` is where each token's bytes begin."""
    byte = tl.arange(0, PADDED)
    inside = byte < BYTES
    here = there[:, None] & inside[None, :]
    packed = tl.zeros([TILE, PADDED], tl.int32)
    for j in tl.static_range(8 // BITS):
        slot = row + start + j * BYTES + byte
        channel = slot - row
        if ORDERED:
            channel = tl.load(order + slot, mask=inside, other=0).to(tl.int32)
        own = tl.load(x[:, None] + channel[None, :], mask=here, other=0.0).to(tl.float32)
        middle = tl.load(centre + slot, mask=inside, other=0.0)
        over = tl.load(inverse + slot, mask=inside, other=0.0)
        packed += _code(own, middle[None, :], over[None, :], LEVELS) << (BITS * j)
    tl.store(out + at[:, None] + byte[None, :], packed.to(tl.uint8), mask=here)


@triton.jit
def _bits(
    states, order, matrix, inverse, centre, tokens, tiles, out, count, nbytes, s_layer, s_head,
    s_token, GROUPS: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr,
    LEVELS: tl.constexpr, BITS: tl.constexpr, PADDED: tl.constexpr, WIDE_PADDED: tl.constexpr,
    TRANSFORM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    NARROW: tl.constexpr = D - WIDE
    head, layer = tl.program_id(1), tl.program_id(2).to(tl.int64)
    tile = tiles + 3 * tl.program_id(0)
    token = tl.load(tile) + tl.arange(0, TILE)
    there = token < tl.load(tile + 1)
    row = ((layer * GROUPS + tl.load(tile + 2)) * HEADS + head) * D
    base = tl.load(tokens + token, mask=there, other=0)
    length = tl.load(tokens + count + token, mask=there, other=0)
    line = head * length + tl.load(tokens + 2 * count + token, mask=there, other=0)
    x = states + layer * s_layer + head * s_head + token.to(tl.int64) * s_token
    out += layer * nbytes
    BYTES: tl.constexpr = NARROW * BITS // 8
    at = base + HEADS * length * (WIDE // 4) + line * BYTES
    if TRANSFORM:
        slot = row + WIDE
        number = turned(
            x, there[:, None], order + slot, centre + slot, matrix, NARROW, TILE, WIDE > 0, True,
            False,
        )  # fmt: skip
        over = tl.load(inverse + slot + tl.arange(0, NARROW))
        code = _code(number, 0.0, over[None, :], LEVELS)
        shift = tl.arange(0, NARROW // BYTES) * (8 * BYTES // NARROW)
        code = tl.reshape(code, (TILE, NARROW // BYTES, BYTES)) << shift[None, :, None]
        spot = out + at[:, None] + tl.arange(0, BYTES)[None, :]
        tl.store(spot, tl.sum(code, 1).to(tl.uint8), mask=there[:, None])
    else:
        _plane(
            x, order, inverse, centre, row, at, there, WIDE, out, BYTES, PADDED, LEVELS, BITS,
            WIDE > 0, TILE,
        )  # fmt: skip
    if WIDE > 0:
        at = base + line * (WIDE // 4)
        _plane(
            x, order, inverse, centre, row, at, there, 0, out, WIDE // 4, WIDE_PADDED,
            _WIDE_LEVELS, 2, True, TILE,
        )  # fmt: skip


@triton.jit
def _fives(
    codes, blocks, out, count, nbytes, HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Pack five ternary codes into a byte: they lie a fifth of a block apart."""
    layer = tl.program_id(2).to(tl.int64)
    block = blocks + 3 * tl.program_id(1)
    begin, elements = tl.load(block), tl.load(block + 1) * (HEADS * D)
    codes += (layer * count + tl.load(block + 2)) * (HEADS * D)
    plane = (elements + 4) // 5
    byte = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    packed = tl.zeros([BLOCK], tl.int32)
    power = 1
    for j in tl.static_range(5):
        element = j * plane + byte
        packed += tl.load(codes + element, mask=element < elements, other=0).to(tl.int32) * power
        power *= 3
    tl.store(out + layer * nbytes + begin + byte, packed.to(tl.uint8), mask=byte < plane)
