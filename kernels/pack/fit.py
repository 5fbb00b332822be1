"""Fitting on a GPU: which channels are wide, scales and centres, and their words.

Levels are fitted in registers: a program holds the tokens that some channels of a head's group are
fitted to. What is of all tokens, the ends of the channels, is read tile by tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.pack import naive
from mmkv.kernels.pack.form import (
    CONSTANT,
    FINEST,
    LISTED,
    PER_OCTAVE,
    UNITS,
    WIDE_LEVELS,
    ZERO,
    Fit,
    Form,
    ratios,
)
from mmkv.kernels.pack.turned import turned

_SAMPLE = tl.constexpr(naive.SAMPLE)
_STEPS, _SAMPLE_STEPS = tl.constexpr(naive.STEPS), tl.constexpr(naive.SAMPLE_STEPS)
_ENDS = tl.constexpr(naive.ENDS)
_FINEST, _PER_OCTAVE = tl.constexpr(float(FINEST)), tl.constexpr(float(PER_OCTAVE))
_UNITS, _ZERO = tl.constexpr(float(UNITS)), tl.constexpr(float(ZERO))
_LISTED, _CONSTANT = tl.constexpr(float(LISTED)), tl.constexpr(float(CONSTANT))
_MAGIC = tl.constexpr(12582912.0)  # 1.5 * 2^23: added and taken off, it rounds to a whole number


@dataclass(frozen=True, slots=True)
class Slots:
    """A fit as `bits.py` quantizes by it, `[G, H, D]` by slot.

    order: int16, slot to channel; None where no channels are wide. centre, inverse: float32, as
    they are decoded; one over the scale.
    """

    order: Tensor | None
    centre: Tensor
    inverse: Tensor


def fit(states: Tensor, groups: Sequence[int], form: Form) -> tuple[Fit, Slots]:
    """What the groups of a page share; states `[L, H, N, D]`, D contiguous."""
    layers, heads, tokens, dim = states.shape
    size = (layers * len(groups), heads, dim)
    rows = size[0] * heads
    scale, centre, first, exact, inverse, decoded = states.new_empty(
        (6, *size), dtype=torch.float32
    )
    constant, wide = states.new_empty((2, *size), dtype=torch.bool)
    words = states.new_empty(size, dtype=torch.int32)
    top = scale.new_empty(size[:2])
    where = (tokens, groups[0], *states.stride()[:3])
    padded = triton.next_power_of_2(dim)
    order = None
    if form.wide:
        order = states.new_empty(size, dtype=torch.int16)
        _choose[(rows,)](
            states, order, wide, *where, GROUPS=len(groups), HEADS=heads, D=dim, PADDED=padded,
            WIDE=form.wide, FITTED=form.fitted, TILE=32, num_warps=8 if padded <= 128 else 16,
        )  # fmt: skip
    else:
        wide.zero_()
    matrix, arch = form.matrix(dim, states.device), configs.capability(states.device)
    sample = max(16, min(naive.SAMPLE, triton.next_power_of_2(max(groups))))
    for start, count, levels, turn in (
        (0, form.wide, WIDE_LEVELS, None),
        (form.wide, dim - form.wide, form.levels, matrix),
    ):
        if not count:
            continue
        block = count if turn is not None else _block(count)
        tiles = configs.fit_tiles(arch, block, turned=turn is not None)
        _fit[(rows, count // block)](
            states, states if order is None else order, states if turn is None else turn,
            first, constant, scale, centre, *where, start,
            GROUPS=len(groups), HEADS=heads, D=dim, BLOCK=block, LEVELS=levels,
            STEP=naive.GAUSSIAN_STEP[levels], FITTED=form.fitted, CENTRED=form.centred,
            ORDERED=order is not None, TRANSFORM=turn is not None, ROWS=sample,
            FULL=min(groups) >= sample, TILE=min(tiles.rows, sample), num_warps=tiles.warps,
            num_stages=tiles.stages,
        )  # fmt: skip
    _words[(rows,)](
        scale, centre, first, constant, scale if order is None else order,
        ratios(states.device), words, top, exact, decoded, inverse,
        D=dim, PADDED=padded, ORDERED=order is not None, num_warps=4,
    )  # fmt: skip
    return Fit(words, top, wide, exact), Slots(order, decoded, inverse)


def _block(count: int) -> int:
    """Channels in a program: the largest power of two up to 32 that divides `count`."""
    return min(32, count & -count)


@triton.jit
def _group(states, row, tokens, size, s_layer, s_head, s_token, GROUPS: tl.constexpr,
           HEADS: tl.constexpr):  # fmt: skip
    """Where a head's group begins, and its tokens."""
    group = row // HEADS
    begin = group % GROUPS * size
    base = states + group // GROUPS * s_layer + row % HEADS * s_head + begin * s_token
    return base, tl.where(group % GROUPS == GROUPS - 1, tokens - begin, size)


@triton.jit
def _tile(base, token, there, stride, channel):
    """Float32 states `[tokens, channels]`, zero where there is no token."""
    spot = base + token.to(tl.int64)[:, None] * stride + channel[None, :]
    return tl.load(spot, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _choose(
    states, order, wide, tokens, size, s_layer, s_head, s_token, GROUPS: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, WIDE: tl.constexpr,
    FITTED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The channels of the largest variance, or of the widest range over all heads."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PADDED)
    inside = channel < D
    if FITTED:
        base, count = _group(states, row, tokens, size, s_layer, s_head, s_token, GROUPS, HEADS)
        own = tl.load(base + channel, mask=inside, other=0.0).to(tl.float32)
        total = tl.zeros([TILE, PADDED], tl.float32)
        square = tl.zeros([TILE, PADDED], tl.float32)
        for at in range(0, count, TILE):
            token = at + tl.arange(0, TILE)
            there = (token < count)[:, None] & inside[None, :]
            x = _tile(base, token, there, s_token, channel)
            x = tl.where(there, x - own[None, :], 0.0)
            total += x
            square += x * x
        mean = tl.sum(total, 0) / count
        spread = tl.sum(square, 0) / count - mean * mean
    else:
        least = tl.full([TILE, PADDED], float("inf"), tl.float32)
        most = tl.full([TILE, PADDED], float("-inf"), tl.float32)
        for head in range(HEADS):
            base, count = _group(
                states, row // HEADS * HEADS + head, tokens, size, s_layer, s_head, s_token,
                GROUPS, HEADS,
            )  # fmt: skip
            for at in range(0, count, TILE):
                token = at + tl.arange(0, TILE)
                there = (token < count)[:, None] & inside[None, :]
                x = _tile(base, token, there, s_token, channel)
                least = tl.minimum(least, tl.where(there, x, float("inf")))
                most = tl.maximum(most, tl.where(there, x, float("-inf")))
        spread = tl.max(most, 0) - tl.min(least, 0)
    spread = tl.where(inside, spread, float("-inf"))
    earlier = channel[None, :] < channel[:, None]
    more = spread[None, :] > spread[:, None]
    more = more | ((spread[None, :] == spread[:, None]) & earlier)
    chosen = inside & (tl.sum(more.to(tl.int32), 1) < WIDE)
    before = tl.sum((earlier & chosen[None, :]).to(tl.int32), 1)
    slot = tl.where(chosen, before, WIDE + channel - before)
    tl.store(wide + row * D + channel, chosen, mask=inside)
    tl.store(order + row * D + slot, channel.to(tl.int16), mask=inside)


@triton.jit
def _fit(
    states, order, matrix, first, constant, scales, centres, tokens, size, s_layer, s_head,
    s_token, start, GROUPS: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, LEVELS: tl.constexpr, STEP: tl.constexpr, FITTED: tl.constexpr,
    CENTRED: tl.constexpr, ORDERED: tl.constexpr, TRANSFORM: tl.constexpr, ROWS: tl.constexpr,
    FULL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base, count = _group(states, row, tokens, size, s_layer, s_head, s_token, GROUPS, HEADS)
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
                x = tl.where(there, _tile(base, token, there, s_token, channel), own[None, :])
                least = tl.minimum(least, x)
                most = tl.maximum(most, x)
                x -= shift[None, :]
            tiles = tiles + (x,)  # type: ignore[assignment]  # noqa: RUF005
        ENDS: tl.constexpr = LEVELS > 3 and CENTRED
        low, high = own, own
        stop = count
        if not TRANSFORM:
            low, high = tl.min(least, 0), tl.max(most, 0)
            # the rest of a longer group matters for its ends, and where the sample is constant
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
                    x = _tile(base, token, there, s_token, channel)
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
        x = tl.where(there, _tile(base, token, there, stride, channel), own[None, :])
        least = tl.minimum(least, x)
        most = tl.maximum(most, x)
    return tl.min(least, 0), tl.max(most, 0)


@triton.jit
def _total(base, count, stride, channel, own, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Sum over tokens, less `own` each."""
    total = tl.zeros([TILE, BLOCK], tl.float32)
    for at in range(0, count, TILE):
        token = at + tl.arange(0, TILE)
        there = (token < count)[:, None]
        x = _tile(base, token, there, stride, channel)
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
                code = (tl.minimum(tl.maximum(code, 0.0), LEVELS - 1.0) + _MAGIC) - _MAGIC
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


@triton.jit
def _words(
    scales, centres, first, constant, order, ratios, words, top, exact, decoded, inverse,
    D: tl.constexpr, PADDED: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """As `naive._rounded` and `form.tables`."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PADDED)
    inside = slot < D
    at = row * D + slot
    scale = tl.load(scales + at, mask=inside, other=0.0)
    centre = tl.load(centres + at, mask=inside, other=0.0)
    same = tl.load(constant + at, mask=inside, other=0) != 0
    precise = tl.where(same, tl.load(first + at, mask=inside, other=0.0), centre)
    largest = tl.max(scale, 0)
    ratio = tl.maximum(scale / tl.maximum(largest, 1e-38), 1e-30)
    code = (_FINEST + _PER_OCTAVE * tl.log2(ratio) + _MAGIC) - _MAGIC
    code = tl.where(scale > 0, tl.minimum(tl.maximum(code, 0.0), _FINEST), 0.0).to(tl.int32)
    own = largest * tl.load(ratios + code)
    step = own / _UNITS
    count = tl.where(step > 0, centre / tl.where(step > 0, step, 1.0), 0.0)
    count = (tl.minimum(tl.maximum(count, -1e6), 1e6) + _MAGIC) - _MAGIC
    high = count + _ZERO
    far = (high < _CONSTANT + 1) | (high > 2 * _ZERO - 2)
    high = tl.where(far | ((step == 0) & (centre != 0)), _LISTED, high)
    high = tl.where(same, _CONSTANT, high)
    channel = slot
    if ORDERED:
        channel = tl.load(order + at, mask=inside, other=0).to(tl.int32)
    spot = row * D + channel
    tl.store(words + spot, high.to(tl.int32) * 64 + code, mask=inside)
    tl.store(exact + spot, precise, mask=inside)
    tl.store(top + row, largest)
    middle = tl.where(high <= _CONSTANT, precise, (high - _ZERO) * step)
    tl.store(decoded + at, middle, mask=inside)
    held = own > 0
    one = tl.full([PADDED], 1.0, tl.float32)
    over = tl.where(held, tl.div_rn(one, tl.where(held, own, 1.0)), 0.0)
    tl.store(inverse + at, over, mask=inside)
