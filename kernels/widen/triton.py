"""Widening codes on a GPU: every byte gathers its own codes, wherever they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.pack.common import code_at
from mmkv.kernels.pack.form import WIDE_LEVELS, Form
from mmkv.kernels.packed_attention.naive import slot_bits

_WIDE_LEVELS = tl.constexpr(WIDE_LEVELS)
_BYTES = 1024  # in a program


def widen(
    data: Tensor,
    pages: Tensor,
    starts: Sequence[int],
    lengths: Sequence[int],
    groups: Sequence[int],
    form: Form,
    size: tuple[int, int, int],
    *,
    values: bool,
) -> Tensor:
    """As `naive.widen`."""
    heads, tokens, dim = size
    bits = slot_bits(form)
    # of every token of a page: its block's first byte and length, and its place in the block
    where = np.repeat(np.array([starts, lengths]), lengths, axis=1)
    place = np.concatenate([np.arange(length) for length in lengths])
    table = torch.from_numpy(np.concatenate([where, place[None]]).T.copy()).to(data.device)
    firsts = torch.from_numpy(np.cumsum([0, *groups])).to(data.device)
    shape = (dim, tokens * bits // 8) if values else (tokens, dim * bits // 8)
    out = data.new_empty((len(pages) * len(groups), heads, *shape))
    each = shape[0] * shape[1]
    _widen[(triton.cdiv(each, _BYTES), len(out), heads)](
        data, pages, table, firsts, out, each,
        HEADS=heads, D=dim, WIDE=form.wide, LEVELS=form.levels, BITS=bits, GROUPS=len(groups),
        ROW=shape[1], VALUES=values, BLOCK=_BYTES, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _widen(
    data, pages, table, firsts, out, each, HEADS: tl.constexpr, D: tl.constexpr,
    WIDE: tl.constexpr, LEVELS: tl.constexpr, BITS: tl.constexpr, GROUPS: tl.constexpr,
    ROW: tl.constexpr, VALUES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, head = tl.program_id(1), tl.program_id(2)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    page = tl.load(pages + group // GROUPS)
    first = tl.load(firsts + group % GROUPS)
    count = tl.load(firsts + group % GROUPS + 1) - first
    line, byte = at // ROW, at % ROW
    packed = tl.zeros([BLOCK], tl.int32)
    for j in tl.static_range(8 // BITS):
        slot, token = j * ROW + byte, line
        if VALUES:
            slot, token = line, j * ROW + byte
        here = (at < each) & (token < count)
        own = table + 3 * (first + token)
        base = page + tl.load(own, mask=here, other=0)
        length = tl.load(own + 1, mask=here, other=1)
        row = head * length + tl.load(own + 2, mask=here, other=0)
        narrow = base + HEADS * length * (WIDE // 4)
        if WIDE > 0:
            wide = slot < WIDE
            code = code_at(
                data, narrow, length, row, tl.maximum(slot - WIDE, 0), here & (slot >= WIDE),
                HEADS, D - WIDE, LEVELS,
            )  # fmt: skip
            code += code_at(data, base, length, row, slot, here & wide, HEADS, WIDE, _WIDE_LEVELS)
        else:
            code = code_at(data, narrow, length, row, slot, here, HEADS, D, LEVELS)
        packed += code << (BITS * j)
    spot = out + (group.to(tl.int64) * HEADS + head) * each + at
    tl.store(spot, packed.to(tl.uint8), mask=at < each)
