"""Packing on a GPU: a program fits some channels of one head's group, tokens tile by tile.

A group's tokens are read again by every step of the fit; they come from the L2 cache then. Scales
and centres, few numbers, are rounded to words in torch, by the same code as in `naive.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.pack import naive
from mmkv.kernels.pack.bits import pack_bits
from mmkv.kernels.pack.form import WIDE_LEVELS, Form, Params, slot_order, tables

__all__ = ["pack", "pack_bits", "quantize", "supports"]

_STEPS = tl.constexpr(naive._LLOYD_STEPS)
_ENDS = tl.constexpr(naive._ENDS)
_TILE = 64  # tokens at a time
_TURNED = 32  # the same where a transform is in between


def supports(form: Form, head_dim: int) -> bool:
    """Whether a form is fitted and coded in Triton; in torch otherwise.

    A transform needs a power of two of channels, 16 or more.
    """
    narrow = head_dim - form.wide
    turned = narrow >= 16 and narrow & (narrow - 1) == 0
    return head_dim % 16 == 0 and (form.transform == "none" or turned)


def pack(states: Tensor, form: Form) -> tuple[Params, Tensor]:
    """As `naive.pack`. Without transform the codes are the same for the same parameters."""
    if states.stride(3) != 1:
        states = states.contiguous()
    groups, heads, tokens, dim = states.shape
    wide = _choose_wide(states, form)
    order = slot_order(wide)
    first, scale, centre = (torch.empty(groups, heads, dim, device=states.device) for _ in range(3))
    constant = torch.empty(groups, heads, dim, dtype=torch.bool, device=states.device)
    matrix = form.matrix(dim, states.device)
    for start, count, levels, turn in _parts(form, dim, matrix):
        block = count if turn is not None else _block(count)
        _fit[(groups * heads, count // block)](
            states, order, states if turn is None else turn, first, constant, scale, centre,
            tokens, *states.stride()[:3], start,
            HEADS=heads, D=dim, BLOCK=block, LEVELS=levels, STEP=naive._GAUSSIAN_STEP[levels],
            FITTED=form.fitted, CENTRED=form.centred, TRANSFORM=turn is not None,
            TILE=_TILE if turn is None else _TURNED, num_warps=8,
            num_stages=1,
        )  # fmt: skip
    params = naive.rounded(first, constant, scale, centre, wide, order)
    return params, quantize(states, params, form)


def quantize(states: Tensor, params: Params, form: Form) -> Tensor:
    """Codes uint8 `[G, H, T, D]` by slot of states by channel, given their parameters."""
    groups, heads, tokens, dim = states.shape
    table = tables(params)
    centre = table.centre.gather(2, table.order)
    inverse = torch.where(table.scale > 0, 1 / table.scale, 0.0)
    codes = torch.empty(groups, heads, tokens, dim, dtype=torch.uint8, device=states.device)
    for start, count, levels, turn in _parts(form, dim, form.matrix(dim, states.device)):
        block = count if turn is not None else _block(count)
        tile = _TILE if turn is None else _TURNED
        _quantize[(triton.cdiv(tokens, tile), groups * heads, count // block)](
            states, table.order, states if turn is None else turn, centre, inverse, codes,
            tokens, *states.stride()[:3], start,
            HEADS=heads, D=dim, BLOCK=block, LEVELS=levels, TRANSFORM=turn is not None,
            TILE=tile, num_warps=4, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip
    return codes


def _parts(
    form: Form, dim: int, matrix: Tensor | None
) -> list[tuple[int, int, int, Tensor | None]]:
    """First slot, number of slots, levels and transform of the wide and the narrow part."""
    parts = [
        (0, form.wide, WIDE_LEVELS, None),
        (form.wide, dim - form.wide, form.levels, matrix),
    ]
    return [part for part in parts if part[1]]


def _block(count: int) -> int:
    """Channels in a program: the largest power of two up to 32 that divides `count`."""
    return min(32, count & -count)


def _choose_wide(states: Tensor, form: Form) -> Tensor:
    groups, heads, tokens, dim = states.shape
    if not form.wide:
        return torch.zeros(groups, heads, dim, dtype=torch.bool, device=states.device)
    if not form.fitted:
        return naive._choose_wide(states.float(), form)
    spread = torch.empty(groups, heads, dim, device=states.device)
    block = _block(dim)
    _spread[(groups * heads, dim // block)](
        states, spread, tokens, *states.stride()[:3],
        HEADS=heads, D=dim, BLOCK=block, TILE=_TILE, num_warps=4,
    )  # fmt: skip
    wide = torch.zeros_like(spread, dtype=torch.bool)
    return wide.scatter_(2, spread.topk(form.wide, dim=2).indices, True)


@triton.jit
def _tile(base, at, tokens, stride, channel, TILE: tl.constexpr):
    """Float32 states `[TILE, n]` of these channels, and whether their tokens are there."""
    token = at + tl.arange(0, TILE)
    there = (token < tokens)[:, None]
    spot = base + token.to(tl.int64)[:, None] * stride + channel[None, :]
    return tl.load(spot, mask=there, other=0.0).to(tl.float32), there


@triton.jit
def _mean(base, tokens, stride, channel, BLOCK: tl.constexpr, TILE: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, tokens, TILE):
        x, _ = _tile(base, at, tokens, stride, channel, TILE)
        total += tl.sum(x, 0)
    return total / tokens


@triton.jit
def _spread(
    states, spread, tokens, s_group, s_head, s_token,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    base = states + row // HEADS * s_group + row % HEADS * s_head
    mean = _mean(base, tokens, s_token, channel, BLOCK, TILE)
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, tokens, TILE):
        x, there = _tile(base, at, tokens, s_token, channel, TILE)
        rest = tl.where(there, x - mean[None, :], 0.0)
        total += tl.sum(rest * rest, 0)
    tl.store(spread + row * D + channel, total / tokens)


@triton.jit
def _rest(
    base, at, tokens, stride, channel, mean, turn, TRANSFORM: tl.constexpr, TILE: tl.constexpr
):
    """States less their mean, transformed; zero where there is no token."""
    x, there = _tile(base, at, tokens, stride, channel, TILE)
    x = tl.where(there, x - mean[None, :], 0.0)
    if TRANSFORM:
        x = tl.dot(x, turn, input_precision="tf32x3")
    return x, there


@triton.jit
def _fit(
    states, order, matrix, first, constant, scales, centres, tokens, s_group, s_head, s_token,
    start, HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, LEVELS: tl.constexpr,
    STEP: tl.constexpr, FITTED: tl.constexpr, CENTRED: tl.constexpr, TRANSFORM: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    slot = start + tl.program_id(1) * BLOCK + column
    channel = tl.load(order + row * D + slot)
    base = states + row // HEADS * s_group + row % HEADS * s_head
    turn = channel
    if TRANSFORM:
        turn = tl.load(matrix + column[:, None] * BLOCK + column[None, :])
    own = tl.load(base + channel).to(tl.float32)
    mean = tl.zeros([BLOCK], tl.float32)
    if CENTRED:
        mean = _mean(base, tokens, s_token, channel, BLOCK, TILE)
    differs = tl.zeros([BLOCK], tl.int32)
    total = tl.zeros([BLOCK], tl.float32)
    size = tl.zeros([BLOCK], tl.float32)
    low = tl.full([BLOCK], float("inf"), tl.float32)
    high = tl.full([BLOCK], float("-inf"), tl.float32)
    for at in range(0, tokens, TILE):
        x, there = _tile(base, at, tokens, s_token, channel, TILE)
        differs = tl.maximum(differs, tl.max(((x != own[None, :]) & there).to(tl.int32), 0))
        x, there = _rest(base, at, tokens, s_token, channel, mean, turn, TRANSFORM, TILE)
        total += tl.sum(x, 0)
        size += tl.sum(tl.abs(x), 0)
        low = tl.minimum(low, tl.min(tl.where(there, x, float("inf")), 0))
        high = tl.maximum(high, tl.max(tl.where(there, x, float("-inf")), 0))
    middle = total / tokens
    if not FITTED:
        if LEVELS > 3:
            scale = (high - low) / (LEVELS - 1)
            centre = (high + low) * 0.5
        else:
            scale = size / tokens * (2 if LEVELS == 2 else 1)
            centre = tl.zeros([BLOCK], tl.float32)
    else:
        spread = tl.zeros([BLOCK], tl.float32)
        for at in range(0, tokens, TILE):
            x, there = _rest(base, at, tokens, s_token, channel, mean, turn, TRANSFORM, TILE)
            x = tl.where(there, x - middle[None, :], 0.0)
            spread += tl.sum(x * x, 0)
        scale = tl.sqrt(spread / tokens) * STEP
        centre = tl.zeros([BLOCK], tl.float32)
        if CENTRED:
            centre = middle
        for _ in range(_STEPS):
            inverse = 1.0 / tl.maximum(scale, 1e-30)
            code1 = tl.zeros([BLOCK], tl.float32)
            code2 = tl.zeros([BLOCK], tl.float32)
            product = tl.zeros([BLOCK], tl.float32)
            for at in range(0, tokens, TILE):
                x, there = _rest(base, at, tokens, s_token, channel, mean, turn, TRANSFORM, TILE)
                code = tl.floor((x - centre[None, :]) * inverse[None, :] + LEVELS / 2)
                code = tl.minimum(tl.maximum(code, 0.0), LEVELS - 1.0) - (LEVELS - 1) / 2
                code = tl.where(there, code, 0.0)
                code1 += tl.sum(code, 0)
                code2 += tl.sum(code * code, 0)
                product += tl.sum(code * x, 0)
            shift = tl.zeros([BLOCK], tl.float32)
            if CENTRED:
                shift = code1 / tokens
            variance = code2 / tokens - shift * shift
            slope = product / tokens - shift * middle
            scale = tl.where(variance > 1e-6, slope / tl.maximum(variance, 1e-6), scale)
            if CENTRED:
                centre = middle - scale * shift
        if LEVELS > 3 and CENTRED:
            scale += _ENDS * ((high - low) / (LEVELS - 1) - scale)
            centre += _ENDS * ((high + low) * 0.5 - centre)
    if TRANSFORM:  # what the centre is before the transform: times its transpose
        centre = tl.sum(turn * centre[None, :], 1)
    at = row * D + slot
    tl.store(first + at, own)
    tl.store(constant + at, differs == 0)
    tl.store(scales + at, scale)
    tl.store(centres + at, mean + centre)


@triton.jit
def _quantize(
    states, order, matrix, centre, inverse, codes, tokens, s_group, s_head, s_token, start,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, LEVELS: tl.constexpr,
    TRANSFORM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, BLOCK)
    slot = start + tl.program_id(2) * BLOCK + column
    channel = tl.load(order + row * D + slot)
    base = states + row // HEADS * s_group + row % HEADS * s_head
    turn = channel
    if TRANSFORM:
        turn = tl.load(matrix + column[:, None] * BLOCK + column[None, :])
    at = tl.program_id(0) * TILE
    mean = tl.load(centre + row * D + slot)
    x, there = _rest(base, at, tokens, s_token, channel, mean, turn, TRANSFORM, TILE)
    code = tl.floor(x * tl.load(inverse + row * D + slot)[None, :] + LEVELS / 2)
    code = tl.minimum(tl.maximum(code, 0.0), LEVELS - 1.0).to(tl.uint8)
    token = at + tl.arange(0, TILE)
    tl.store(codes + (row * tokens + token[:, None]) * D + slot[None, :], code, mask=there)
