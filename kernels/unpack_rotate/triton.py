"""Unpacking on a GPU: a program takes some tokens of one head from codes to rotated states.

Blocks of any lengths and pages go through one launch. What the kernel needs to know of a token
(its block's first byte, its length, its place in it) is made from the lengths on the host, and
comes over with the groups' parameters in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.common.naive import places, staged
from mmkv.kernels.pack.common import code_at
from mmkv.kernels.pack.form import (
    CONSTANT,
    FINEST,
    UNITS,
    WIDE_LEVELS,
    ZERO,
    Form,
    Params,
    ratios,
)

_FINEST, _CONSTANT = tl.constexpr(FINEST), tl.constexpr(CONSTANT)
_UNITS, _ZERO = tl.constexpr(float(UNITS)), tl.constexpr(ZERO)
_WIDE_LEVELS = tl.constexpr(WIDE_LEVELS)
_HALF_WIDE = tl.constexpr((WIDE_LEVELS - 1) / 2)


def supports(form: Form, head_dim: int) -> bool:
    """Whether a form is unpacked in Triton, not in torch.

    That takes head sizes that are powers of two, and transforms over 16 to 128 channels.
    """
    narrow = head_dim - form.wide
    sizes = all(n & (n - 1) == 0 for n in (head_dim, form.wide, narrow))
    return sizes and (form.transform == "none" or 16 <= narrow <= 128)


def unpack_rotate(
    codes: Tensor,
    at: Tensor,
    lengths: Sequence[int],
    rows: Tensor,
    params: Params,
    form: Form,
    rotation: tuple[Tensor, Tensor] | None,
    out: Tensor,
) -> Tensor:
    """As `naive.unpack_rotate`."""
    launcher(codes, at, lengths, rows, params, form, rotation, out)()
    return out


def launcher(
    codes: Tensor,
    at: Tensor,
    lengths: Sequence[int],
    rows: Tensor,
    params: Params,
    form: Form,
    rotation: tuple[Tensor, Tensor] | None,
    out: Tensor,
) -> Callable[[], object]:
    """The launch, with everything that the kernel reads in place: two copies and a small launch."""
    heads, total, dim = out.shape
    device = out.device
    assert out.stride(2) == 1
    block, place = places(lengths)
    tokens = np.stack([at.numpy()[block], np.array(lengths)[block], place, rows.numpy()])
    listed = params.listed.numel() > 0
    known = np.zeros(params.words.shape if listed else (1,), dtype=np.float32)
    if listed:
        known[(params.words >> 6).numpy() <= CONSTANT] = params.listed.numpy()
    held = (tokens, params.words.numpy().astype(np.int16), params.wide.numpy(), params.top.numpy())
    where, words, wide, top, exact = staged([*held, known], device)
    scale, centre = top.new_empty((2, *words.shape))
    position = words.new_empty(words.shape if form.wide else (1,))
    _decode[(words.shape[0] * heads,)](
        words, wide, top, exact, ratios(device), scale, centre, position,
        D=dim, PADDED=triton.next_power_of_2(dim), WIDE=form.wide, LISTED=listed, num_warps=4,
    )  # fmt: skip
    data = codes.to(device, non_blocking=True)
    matrix = form.matrix(dim, device)
    cos, sin = rotation if rotation is not None else (top, top)
    tile = 32 if matrix is None else 16
    return lambda: _unpack_rotate[(triton.cdiv(total, tile), heads)](
        data, where, scale, centre, position, words,
        top if matrix is None else matrix, cos, sin, out, total, out.stride(0), out.stride(1),
        HEADS=heads, D=dim, WIDE=form.wide, LEVELS=form.levels, LISTED=listed,
        TRANSFORM=matrix is not None, ROTARY=0 if rotation is None else cos.shape[1],
        TILE=tile, num_warps=4, num_stages=1,
    )  # fmt: skip


@triton.jit
def _decode(
    words, wide, top, exact, ratios, scales, centres, positions,
    D: tl.constexpr, PADDED: tl.constexpr, WIDE: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """As `form.tables`, for one head of a group; where channels are wide, every channel's slot."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PADDED)
    inside = channel < D
    at = row * D + channel
    word = tl.load(words + at, mask=inside, other=0).to(tl.int32) & 0xFFFF
    code, high = word & _FINEST, word >> 6
    scale = tl.load(top + row) * tl.load(ratios + code)
    centre = (high - _ZERO).to(tl.float32) * (scale / _UNITS)
    if LISTED:
        known = tl.load(exact + at, mask=inside, other=0.0)
        centre = tl.where(high <= _CONSTANT, known, centre)
    slot = channel
    if WIDE > 0:
        more = (tl.load(wide + at, mask=inside, other=0) != 0).to(tl.int32)
        before = tl.cumsum(more, 0) - more
        slot = tl.where(more > 0, before, WIDE + channel - before)
        tl.store(positions + at, slot.to(tl.int16), mask=inside)
    tl.store(scales + row * D + slot, scale, mask=inside)
    tl.store(centres + at, centre, mask=inside)


@triton.jit
def _unpack_rotate(
    codes, where, scales, centres, positions, words, matrix, cos, sin, out,
    total, out_head, out_token,
    HEADS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, LEVELS: tl.constexpr,
    LISTED: tl.constexpr, TRANSFORM: tl.constexpr, ROTARY: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    NARROW: tl.constexpr = D - WIDE
    head = tl.program_id(1)
    token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = token < total
    here = there[:, None]
    base = tl.load(where + token, mask=there, other=0)[:, None]
    length = tl.load(where + total + token, mask=there, other=1)[:, None]
    place = tl.load(where + 2 * total + token, mask=there, other=0)[:, None]
    at = head * length + place
    group = tl.load(where + 3 * total + token, mask=there, other=0)
    row = ((group * HEADS + head) * D)[:, None]
    slot = tl.arange(0, NARROW)
    after = base + HEADS * length * (WIDE // 4)
    code = code_at(codes, after, length, at, slot[None, :], here, HEADS, NARROW, LEVELS)
    scale = tl.load(scales + row + WIDE + slot[None, :], mask=here, other=0.0)
    narrow = (code.to(tl.float32) - (LEVELS - 1) / 2) * scale
    if TRANSFORM:  # the transpose undoes it
        turn = tl.load(matrix + slot[None, :] * NARROW + slot[:, None])
        narrow = tl.dot(narrow, turn, input_precision="tf32x3")
    channel = tl.arange(0, D)
    states = narrow
    if WIDE > 0:
        slot = tl.arange(0, WIDE)
        code = code_at(codes, base, length, at, slot[None, :], here, HEADS, WIDE, _WIDE_LEVELS)
        scale = tl.load(scales + row + slot[None, :], mask=here, other=0.0)
        wide = (code.to(tl.float32) - _HALF_WIDE) * scale
        position = tl.load(positions + row + channel[None, :], mask=here, other=0).to(tl.int32)
        first = position < WIDE
        states = tl.where(
            first,
            tl.gather(wide, tl.where(first, position, 0), 1),
            tl.gather(narrow, tl.where(first, 0, position - WIDE), 1),
        )
    centre = tl.load(centres + row + channel[None, :], mask=here, other=0.0)
    if LISTED:  # constant channels are their centre, exactly
        high = (
            tl.load(words + row + channel[None, :], mask=here, other=0).to(tl.int32) >> 6
        ) & 1023
        states = tl.where(high == 1, 0.0, states)
    states += centre
    if ROTARY > 0:
        left = channel < ROTARY // 2
        partner = tl.where(left, channel + ROTARY // 2, channel - ROTARY // 2)
        partner = tl.where(channel < ROTARY, partner, channel)
        other = tl.gather(states, tl.broadcast_to(partner[None, :], (TILE, D)), 1)
        turned = here & (channel < ROTARY)[None, :]
        at = token.to(tl.int64)[:, None] * ROTARY + channel[None, :]
        c = tl.load(cos + at, mask=turned, other=1.0).to(tl.float32)
        s = tl.load(sin + at, mask=turned, other=0.0).to(tl.float32)
        states = states * c + other * tl.where(left[None, :], -s, s)
    spot = out + head * out_head + token.to(tl.int64)[:, None] * out_token + channel[None, :]
    tl.store(spot, states.to(out.dtype.element_ty), mask=here)
