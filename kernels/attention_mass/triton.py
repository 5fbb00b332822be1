"""Attention mass on a GPU: log-sum-exp per query, then sums per key.

The first and the last launch are parallel over keys as well as over queries, so that a few queries
over many keys fill the device; the query heads of a key head are rows of one tile, and its keys are
read once. Queries are rotated by the first launch, for both.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.common.triton import rotated

_LOG2_E = 1.4426950408889634


def attention_mass(
    query: Tensor,
    key: Tensor,
    scaling: float,
    before: int | None = None,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As `naive.attention_mass`."""
    kv_heads, m, dim = key.shape
    heads, n, _ = query.shape
    query, key = (t if t.stride(2) == 1 else t.contiguous() for t in (query, key))
    rows = heads // kv_heads * n
    tiles = configs.mass_tiles(rows, key.shape[-1], key.element_size())
    blocks, pieces = triton.cdiv(rows, tiles.rows), triton.cdiv(m, tiles.cols)
    splits = min(64, configs.splits(key.device, kv_heads * blocks, pieces))
    per = triton.cdiv(pieces, splits) * tiles.cols
    turned = torch.empty(kv_heads, rows, dim, dtype=query.dtype, device=key.device)
    sums = torch.empty(kv_heads, splits, rows, device=key.device)
    lse = torch.empty(kv_heads, rows, device=key.device)
    mass = torch.empty(kv_heads, m, device=key.device)
    cos, sin = rotation if rotation is not None else (query, query)
    sizes = {
        "ROWS": tiles.rows, "KEYS": tiles.cols, "D": dim, "BLOCK_D": triton.next_power_of_2(dim),
        "CAUSAL": before is not None,
        # without the matrix unit more of the keys would be held in registers than there are
        "PRECISION": "tf32x3" if key.dtype == torch.float32 else "tf32",
        "num_warps": tiles.warps, "num_stages": tiles.stages,
    }  # fmt: skip
    last = before or 0
    _lse[(blocks, kv_heads, splits)](
        query, key, cos, sin, turned, sums, rows, n, m, last, per, scaling * _LOG2_E,
        query.stride(0), query.stride(1), key.stride(0), key.stride(1),
        GROUP=heads // kv_heads, ROTARY=0 if rotation is None else cos.shape[1], **sizes,
    )  # fmt: skip
    _total[(triton.cdiv(rows, 128), kv_heads)](sums, lse, rows, splits, ROWS=128, num_warps=4)
    _mass[(pieces, kv_heads)](
        turned, key, lse, mass, rows, n, m, last, scaling * _LOG2_E, key.stride(0), key.stride(1),
        **sizes,
    )  # fmt: skip
    return mass


@triton.jit
def _tile(base, at, count, stride, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    row = at + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    where = base + row.to(tl.int64)[:, None] * stride + column[None, :]
    return tl.load(where, mask=(row < count)[:, None] & (column < D)[None, :], other=0.0), row


@triton.jit
def _scores(
    q, k, row, col, n, m, last, scale, CAUSAL: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """Scores `[ROWS, KEYS]` in base 2, minus infinity where a key is not seen."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    seen = (col < m)[None, :]
    if CAUSAL:
        seen = seen & (col[None, :] <= last + (row % n)[:, None])
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def _lse(
    query, key, cos, sin, turned, sums, rows, n, m, last, per, scale, q_head, q_row, s_head,
    s_token, GROUP: tl.constexpr, ROTARY: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    kv, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    here, token = row < rows, row % n
    offsets = (kv * GROUP + row // n) * q_head + token.to(tl.int64) * q_row
    q = rotated(query, offsets, token, here, column, cos, sin, D, ROTARY)
    if split == 0:
        spot = turned + (kv * rows + row)[:, None] * D + column[None, :]
        tl.store(spot, q, mask=here[:, None] & (column < D)[None, :])
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for at in range(split * per, tl.minimum(split * per + per, m), KEYS):
        k, col = _tile(key + kv * s_head, at, m, s_token, D, KEYS, BLOCK_D)
        scores = _scores(q, k, row, col, n, m, last, scale, CAUSAL, PRECISION)
        higher = tl.maximum(best, tl.max(scores, 1))
        total = total * tl.exp2(best - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)
        best = higher
    where = sums + (kv * tl.num_programs(2) + split) * rows + row
    seen = total > 0
    lse = tl.where(seen, best + tl.log2(tl.where(seen, total, 1.0)), float("-inf"))
    tl.store(where, lse, mask=here)


@triton.jit
def _total(sums, lse, rows, splits, ROWS: tl.constexpr):
    """Log-sum-exp of every row over the splits, base 2; one of them is finite."""
    kv = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own = sums + kv * splits * rows + row
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for i in range(splits):
        part = tl.load(own + i * rows, mask=row < rows, other=0.0)
        higher = tl.maximum(best, part)
        total = total * tl.exp2(best - higher) + tl.exp2(part - higher)
        best = higher
    tl.store(lse + kv * rows + row, best + tl.log2(total), mask=row < rows)


@triton.jit
def _mass(
    turned, key, lse, mass, rows, n, m, last, scale, s_head, s_token,
    ROWS: tl.constexpr, KEYS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    kv = tl.program_id(1).to(tl.int64)
    k, col = _tile(key + kv * s_head, tl.program_id(0) * KEYS, m, s_token, D, KEYS, BLOCK_D)
    total = tl.zeros([KEYS], tl.float32)
    for at in range(0, rows, ROWS):
        q, row = _tile(turned + kv * rows * D, at, rows, D, D, ROWS, BLOCK_D)
        scores = _scores(q, k, row, col, n, m, last, scale, CAUSAL, PRECISION)
        own = tl.load(lse + kv * rows + row, mask=row < rows, other=float("inf"))
        total += tl.sum(tl.exp2(scores - own[:, None]), 0)
    tl.store(mass + kv * m + col, total, mask=col < m)
