"""Merging on a GPU: find the nearest kept key tile by tile, then gather what goes to each.

The sums are products with zeros and ones on the matrix unit, not atomic additions, so that the same
input always gives the same output. No matrix of evicted by kept tokens is ever written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.merge import naive
from mmkv.kernels.merge.naive import Mode


def merge(
    key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor, mode: Mode = "average"
) -> tuple[Tensor, Tensor]:
    """As `naive.merge`."""
    naive.check(kept, mode)
    key, value = (s if s.stride(2) == 1 else s.contiguous() for s in (key, value))
    kept, evicted = kept.contiguous(), evicted.contiguous()
    heads, _, dim = key.shape
    k, e = kept.shape[1], evicted.shape[1]
    tile = configs.merge_tile(dim, key.element_size())
    nearest = torch.empty(heads, e, dtype=torch.int32, device=key.device)
    similarity = torch.empty(heads, e, device=key.device)
    sizes = {
        "D": dim, "BLOCK_D": triton.next_power_of_2(dim), "TILE": tile,
        # half precision is exact in tf32; float32 takes three products
        "PRECISION": "tf32x3" if key.dtype == torch.float32 else "tf32",
        "num_warps": 4, "num_stages": 1,
    }  # fmt: skip
    if e:
        _nearest[(triton.cdiv(e, tile), heads)](
            key, kept, evicted, nearest, similarity, k, e, key.stride(0), key.stride(1), **sizes
        )
    weight, blend = naive.weights(similarity, mode)
    outs = []
    for states in (key, value):
        out = states.new_empty((heads, k, dim))
        _gather[(triton.cdiv(k, tile), heads)](
            states, kept, evicted, nearest, weight, out, k, e, blend,
            states.stride(0), states.stride(1), **(sizes | {"PRECISION": "tf32x3"}),
        )  # fmt: skip
        outs.append(out)
    return outs[0], outs[1]


@triton.jit
def _rows(
    base, tokens, at, count, stride, D: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Float32 states `[TILE, BLOCK_D]` of listed tokens, and their places in the list."""
    place = at + tl.arange(0, TILE)
    column = tl.arange(0, BLOCK_D)
    there = place < count
    token = tl.load(tokens + place, mask=there, other=0)
    where = base + token[:, None] * stride + column[None, :]
    rows = tl.load(where, mask=there[:, None] & (column < D)[None, :], other=0.0)
    return rows.to(tl.float32), place


@triton.jit
def _nearest(
    key, kept, evicted, nearest, similarity, k, e, s_head, s_token,
    D: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    base = key + head * s_head
    first = tl.program_id(0) * TILE
    rows, place = _rows(base, evicted + head * e, first, e, s_token, D, BLOCK_D, TILE)
    best = tl.full([TILE], float("-inf"), tl.float32)
    found = tl.zeros([TILE], tl.int32)
    for at in range(0, k, TILE):
        pivots, spot = _rows(base, kept + head * k, at, k, s_token, D, BLOCK_D, TILE)
        size = tl.maximum(tl.sqrt(tl.sum(pivots * pivots, 1)), 1e-12)
        cosine = tl.dot(rows, tl.trans(pivots), input_precision=PRECISION) / size[None, :]
        cosine = tl.where((spot < k)[None, :], cosine, float("-inf"))
        own = tl.max(cosine, 1)
        index = tl.min(tl.where(cosine == own[:, None], spot[None, :], 2147483647), 1)
        found = tl.where(own > best, index, found)
        best = tl.maximum(best, own)
    size = tl.maximum(tl.sqrt(tl.sum(rows * rows, 1)), 1e-12)
    tl.store(nearest + head * e + place, found, mask=place < e)
    tl.store(similarity + head * e + place, best / size, mask=place < e)


@triton.jit
def _gather(
    states, kept, evicted, nearest, weight, out, k, e, blend, s_head, s_token,
    D: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    base = states + head * s_head
    first = tl.program_id(0) * TILE
    pivots, spot = _rows(base, kept + head * k, first, k, s_token, D, BLOCK_D, TILE)
    total = tl.zeros([TILE], tl.float32)
    acc = tl.zeros([TILE, BLOCK_D], tl.float32)
    for at in range(0, e, TILE):
        rows, place = _rows(base, evicted + head * e, at, e, s_token, D, BLOCK_D, TILE)
        goes = tl.load(nearest + head * e + place, mask=place < e, other=-1)
        share = tl.load(weight + head * e + place, mask=place < e, other=0.0)
        hit = tl.where(goes[None, :] == spot[:, None], share[None, :], 0.0)  # [kept, evicted]
        total += tl.sum(hit, 1)
        acc += tl.dot(hit, rows, input_precision=PRECISION)
    mean = (pivots * (1 + (1 - blend) * total)[:, None] + blend * acc) / (1 + total)[:, None]
    column = tl.arange(0, BLOCK_D)
    where = out + (head * k + spot)[:, None] * D + column[None, :]
    mask = (spot < k)[:, None] & (column < D)[None, :]
    tl.store(where, mean.to(out.dtype.element_ty), mask=mask)
