"""Summaries on a GPU: one launch for a chunk, a program per block."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 16  # tokens at a time


def summarize(key: Tensor, tokens: Tensor, landmarks: int) -> Tensor:
    """As `naive.summarize`."""
    heads, _, dim = key.shape
    blocks, count = tokens.shape
    if key.stride(2) != 1:
        key = key.contiguous()
    out = torch.empty(blocks, 1 + landmarks, heads, dim, device=key.device)
    nearest = torch.full((blocks, count), torch.inf, device=key.device)
    _summarize[(blocks,)](
        key, tokens.contiguous(), nearest, out, count, landmarks, key.stride(0), key.stride(1),
        SIZE=heads * dim, D=dim, BLOCK=triton.next_power_of_2(heads * dim), TILE=_TILE,
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return out


@triton.jit
def _keys(key, tokens, at, count, s_token, spot, inside, TILE: tl.constexpr):
    """Keys of all heads, float32 `[TILE, BLOCK]`, and which tokens are there."""
    row = at + tl.arange(0, TILE)
    there = row < count
    token = tl.load(tokens + row, mask=there, other=0)
    where = key + token[:, None] * s_token + spot[None, :]
    mask = there[:, None] & inside[None, :]
    return tl.load(where, mask=mask, other=0.0).to(tl.float32), row, there


@triton.jit
def _summarize(
    key, tokens, nearest, out, count, landmarks, s_head, s_token,
    SIZE: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    tokens += block * count
    nearest += block * count
    out += block * (1 + landmarks) * SIZE
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    spot = column // D * s_head + column % D
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, count, TILE):
        x, row, there = _keys(key, tokens, at, count, s_token, spot, inside, TILE)
        total += tl.sum(x, 0)
    last = total / count
    tl.store(out + column, last, mask=inside)
    for i in range(landmarks):
        farthest = tl.full([], -1.0, tl.float32)
        chosen = tl.full([], 0, tl.int32)
        for at in range(0, count, TILE):
            x, row, there = _keys(key, tokens, at, count, s_token, spot, inside, TILE)
            rest = tl.where(inside[None, :], x - last[None, :], 0.0)
            distance = tl.sum(rest * rest, 1)
            own = tl.minimum(tl.load(nearest + row, mask=there, other=0.0), distance)
            tl.store(nearest + row, own, mask=there)
            own = tl.where(there, own, -1.0)
            best = tl.max(own, 0)
            # the first of equals, as torch's argmax
            index = tl.min(tl.where(own == best, row, 2147483647), 0)
            chosen = tl.where(best > farthest, index, chosen)
            farthest = tl.maximum(farthest, best)
        token = tl.load(tokens + chosen)
        last = tl.load(key + token * s_token + spot, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + (i + 1) * SIZE + column, last, mask=inside)
        tl.debug_barrier()
