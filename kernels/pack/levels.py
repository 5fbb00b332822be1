"""Scales and centres of groups on a GPU.

Levels are fitted in registers: a program holds the tokens that some channels of a head's group are
fitted to. What takes all tokens, the ends of the channels, is read tile by tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmkv.kernels.pack import naive
from mmkv.kernels.pack.common import group_of, nearest, tile_of, turned

_SAMPLE = tl.constexpr(naive.SAMPLE)
_STEPS, _SAMPLE_STEPS = tl.constexpr(naive.STEPS), tl.constexpr(naive.SAMPLE_STEPS)
_ENDS = tl.constexpr(naive.ENDS)


@triton.jit
def fit_levels(
    states, order, matrix, first, constant, scales, centres, tokens, size, s_layer, s_head,
    s_token, start, GROUPS: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, LEVELS: tl.constexpr, STEP: tl.constexpr, FITTED: tl.constexpr,
    CENTRED: tl.constexpr, ORDERED: tl.constexpr, TRANSFORM: tl.constexpr, ROWS: tl.constexpr,
    FULL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base, count = group_of(states, row, tokens, size, s_layer, s_head, s_token, GROUPS, HEADS)
    column = tl.arange(0, BLOCK)
    slot = start + tl.program_id(1) * BLOCK + column
    channel = slot
    if ORDERED:
        channel = tl.load(order + row * D + slot).to(tl.int32)
    own = tl.load(base + channel).to(tl.float32)
    channels = order + row * D + start
    shift = tl.zeros([BLOCK], tl.float32)
    if CENTRED:
        shift = own
    if FITTED:
        # tiles of the tokens that levels are fitted to, in registers
        used = tl.minimum(count, _SAMPLE)
        tiles = ()
        least = tl.full([TILE, BLOCK], float("inf"), tl.float32)
        most = tl.full([TILE, BLOCK], float("-inf"), tl.float32)
        for i in tl.static_range(ROWS // TILE):
            line = i * TILE + tl.arange(0, TILE)
            token = tl.where(count > _SAMPLE, line * count // _SAMPLE, line)
            there = (line < used)[:, None]
            if TRANSFORM:
                x = turned(
                    base + token.to(tl.int64) * s_token, there, channels, base, matrix, BLOCK, TILE,
                    ORDERED, CENTRED, True,
                )  # fmt: skip
            else:
                x = tl.where(there, tile_of(base, token, there, s_token, channel), own[None, :])
                least = tl.minimum(least, x)
                most = tl.maximum(most, x)
                x -= shift[None, :]
            tiles = tiles + (x,)  # type: ignore[assignment]  # noqa: RUF005
        ENDS: tl.constexpr = LEVELS > 3 and CENTRED
        low, high = own, own
        stop = count
        if not TRANSFORM:
            low, high = tl.min(least, 0), tl.max(most, 0)
            # the rest of a longer group matters only for its ends, and if the sample is constant
            ended = ENDS | (tl.max((low == high).to(tl.int32), 0) > 0)
            stop = tl.where((count > _SAMPLE) & ended, count, 0)
        low, high = _ends(base, stop, s_token, channel, own, low, high, BLOCK, TILE)
        scale, centre = _least_squares(
            tiles, used, count, BLOCK, TILE, ROWS, FULL, LEVELS, STEP, CENTRED
        )
        if ENDS:
            scale += _ENDS * ((high - low) / (LEVELS - 1) - scale)
            centre += _ENDS * ((high + low) * 0.5 - shift - centre)
    else:
        low, high = _ends(base, count, s_token, channel, own, own, own, BLOCK, TILE)
        if CENTRED:
            shift = own + _total(base, count, s_token, channel, own, BLOCK, TILE) / count
        if LEVELS > 3:
            scale = (high - low) / (LEVELS - 1)
            centre = (high + low) * 0.5 - shift
        else:
            mass = tl.zeros([TILE, BLOCK], tl.float32)
            left = shift
            if TRANSFORM:
                left = tl.zeros([BLOCK], tl.float32)
                if CENTRED:  # what `turned` takes off is the first token
                    turn = tl.load(matrix + column[:, None] * BLOCK + column[None, :])
                    left = tl.sum(turn * (shift - own)[:, None], 0)
            for at in range(0, count, TILE):
                token = at + tl.arange(0, TILE)
                there = (token < count)[:, None]
                if TRANSFORM:
                    x = turned(
                        base + token.to(tl.int64) * s_token, there, channels, base, matrix, BLOCK,
                        TILE, ORDERED, CENTRED, True,
                    )  # fmt: skip
                else:
                    x = tile_of(base, token, there, s_token, channel)
                mass += tl.where(there, tl.abs(x - left[None, :]), 0.0)
            scale = tl.sum(mass, 0) / count * (2 if LEVELS == 2 else 1)
            centre = tl.zeros([BLOCK], tl.float32)
    if TRANSFORM:  # what the centre is before the transform: times its transpose
        turn = tl.load(matrix + column[:, None] * BLOCK + column[None, :])
        centre = tl.sum(turn * centre[None, :], 1)
    at = row * D + slot
    tl.store(first + at, own)
    tl.store(constant + at, low == high)
    tl.store(scales + at, scale)
    tl.store(centres + at, shift + centre)


@triton.jit
def _ends(
    base, stop, stride, channel, own, low, high, BLOCK: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """The least and the largest of tokens before `stop`, and of what is given."""
    least = tl.broadcast_to(low[None, :], (TILE, BLOCK))
    most = tl.broadcast_to(high[None, :], (TILE, BLOCK))
    for at in range(0, stop, TILE):
        token = at + tl.arange(0, TILE)
        there = (token < stop)[:, None]
        x = tl.where(there, tile_of(base, token, there, stride, channel), own[None, :])
        least = tl.minimum(least, x)
        most = tl.maximum(most, x)
    return tl.min(least, 0), tl.max(most, 0)


@triton.jit
def _total(base, count, stride, channel, own, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Sum over tokens, minus `own` each."""
    total = tl.zeros([TILE, BLOCK], tl.float32)
    for at in range(0, count, TILE):
        token = at + tl.arange(0, TILE)
        there = (token < count)[:, None]
        x = tile_of(base, token, there, stride, channel)
        total += tl.where(there, x - own[None, :], 0.0)
    return tl.sum(total, 0)


@triton.jit
def _least_squares(
    tiles, used, count, BLOCK: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
    FULL: tl.constexpr, LEVELS: tl.constexpr, STEP: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """Scale and centre for the first `used` rows of tiles of `TILE`; FULL: for all of them."""
    HALF: tl.constexpr = (LEVELS - 1) / 2
    line = tl.arange(0, TILE)
    share = 1.0 / used.to(tl.float32)
    total = tl.zeros([TILE, BLOCK], tl.float32)
    for i in tl.static_range(ROWS // TILE):
        x = tiles[i]
        if not FULL:
            x = tl.where((i * TILE + line < used)[:, None], x, 0.0)
        total += x
    mean = tl.sum(total, 0) * share
    total = tl.zeros([TILE, BLOCK], tl.float32)
    for i in tl.static_range(ROWS // TILE):
        x = tiles[i] - mean[None, :]
        if not FULL:
            x = tl.where((i * TILE + line < used)[:, None], x, 0.0)
        total += x * x
    scale = tl.sqrt(tl.sum(total, 0) * share) * STEP
    centre = tl.zeros([BLOCK], tl.float32)
    if CENTRED:
        centre = mean
    for _ in range(tl.where(count > _SAMPLE, _SAMPLE_STEPS, _STEPS)):
        inverse = 1.0 / tl.maximum(scale, 1e-30)
        offset = HALF - centre * inverse
        codes = tl.zeros([TILE, BLOCK], tl.float32)
        squares = tl.zeros([TILE, BLOCK], tl.float32)
        products = tl.zeros([TILE, BLOCK], tl.float32)
        for i in tl.static_range(ROWS // TILE):
            x = tiles[i]
            if LEVELS == 2:
                code = tl.where(x >= centre[None, :], 1.0, 0.0)
            else:
                code = x * inverse[None, :] + offset[None, :]
                code = nearest(tl.minimum(tl.maximum(code, 0.0), LEVELS - 1.0))
            if not FULL:
                code = tl.where((i * TILE + line < used)[:, None], code, 0.0)
            codes += code
            squares += code * code
            products += code * x
        middle = tl.sum(codes, 0) * share
        variance, slope = tl.sum(squares, 0) * share, tl.sum(products, 0) * share
        if CENTRED:
            variance -= middle * middle
            slope -= middle * mean
        else:  # codes are counted from their middle
            variance += HALF * HALF - 2 * HALF * middle
            slope -= HALF * mean
        scale = tl.where(variance > 1e-6, slope / tl.maximum(variance, 1e-6), scale)
        if CENTRED:
            centre = mean - scale * (middle - HALF)
    return scale, centre
