"""Window attention on a GPU: one pass over the visible tokens only, one softmax with the sinks.

A program takes a tile of queries of one head, rotates it (near and far), and walks the tokens it
may see in stream order; slots of the ring follow from token numbers, so no mask is ever stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.common.triton import rotated
from mmkv.kernels.window_attention.naive import Chunk

_LOG2_E = 1.4426950408889634


def window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chunk: Chunk,
    sinks: tuple[Tensor, Tensor] | None,
    scaling: float,
) -> Tensor:
    """As `naive.window_attention`."""
    _, heads, n, dim = query.shape
    out = query.new_empty((1, n, heads, dim))
    if query.stride(3) != 1:
        query = query.contiguous()
    far = chunk.far is not None and sinks is not None
    sink_key, sink_value = sinks if far and sinks is not None else (key, value)
    far_cos, far_sin = chunk.far if far and chunk.far is not None else chunk.near
    for ring in (key, value, sink_key, sink_value):
        assert ring.stride(3) == 1
    element = query.element_size()
    tiles = configs.window_tiles(configs.capability(query.device), n, heads, dim, element)
    grid = (triton.cdiv(n, tiles.rows), heads)
    _window_attention[grid](
        query,
        key,
        value,
        out,
        chunk.near[0],
        chunk.near[1],
        far_cos,
        far_sin,
        sink_key,
        sink_value,
        key if chunk.last is None else chunk.last,
        chunk.start,
        n,
        key.shape[2],
        chunk.local,
        chunk.sinks,
        scaling * _LOG2_E,
        query.stride(1),
        query.stride(2),
        key.stride(1),
        key.stride(2),
        value.stride(1),
        value.stride(2),
        sink_key.stride(1),
        sink_key.stride(2),
        sink_value.stride(1),
        sink_value.stride(2),
        HEADS=heads,
        GROUP=heads // key.shape[1],
        D=dim,
        ROTARY=chunk.near[0].shape[1],
        FAR=far,
        AHEAD=chunk.last is not None,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        BLOCK_M=tiles.rows,
        BLOCK_N=tiles.cols,
        BLOCK_D=triton.next_power_of_2(dim),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@triton.jit
def _step(q, k, v, seen, best, total, acc, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """One tile of keys `[N, D]` into the running softmax."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale  # [M, N], base 2
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    higher = tl.maximum(best, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    keep = tl.exp2(best - higher)
    total = total * keep + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * keep[:, None], input_precision=PRECISION)
    return higher, total, acc


@triton.jit
def _ring_tile(
    ring, tokens, capacity, stride, cols, inside, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    at = ring + (tokens % capacity).to(tl.int64)[:, None] * stride + cols[None, :]
    if BLOCK_D != D:
        return tl.load(at, mask=inside[:, None] & (cols < D)[None, :], other=0.0)
    return tl.load(at, mask=inside[:, None], other=0.0)


@triton.jit
def _window_attention(
    query, key, value, out, cos, sin, far_cos, far_sin, sink_key, sink_value, sees,
    start, n, capacity, local, sinks, scale,
    q_head, q_row, k_head, k_row, v_head, v_row, sk_head, sk_row, sv_head, sv_row,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, ROTARY: tl.constexpr,
    FAR: tl.constexpr, AHEAD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # the last tiles see as much as the first: no order of programs is better than another
    first_row, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    kv = (head // GROUP).to(tl.int64)
    rows = first_row + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_D)
    steps = tl.arange(0, BLOCK_N)
    asks = start + rows  # [M] token numbers
    query += head.to(tl.int64) * q_head
    key += kv * k_head
    value += kv * v_head
    best = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    every = steps >= 0
    offsets = rows.to(tl.int64) * q_row
    if FAR:
        q = rotated(query, offsets, rows, rows < n, cols, far_cos, far_sin, D, ROTARY)
        for at in range(0, sinks, BLOCK_N):
            sink = at + steps
            there = sink < sinks
            k = _ring_tile(sink_key + kv * sk_head, sink, sinks, sk_row, cols, there, D, BLOCK_D)
            v = _ring_tile(sink_value + kv * sv_head, sink, sinks, sv_row, cols, there, D, BLOCK_D)
            seen = there[None, :] & (asks[:, None] - sink[None, :] >= local)
            best, total, acc = _step(q, k, v, seen, best, total, acc, scale, True, PRECISION)
    q = rotated(query, offsets, rows, rows < n, cols, cos, sin, D, ROTARY)
    last = tl.minimum(first_row + BLOCK_M, n) - 1 + start  # the newest token of this tile
    newest = last  # and that it sees
    if AHEAD:
        until = tl.load(sees + rows, mask=rows < n, other=0).to(tl.int32)  # [M]
        newest = tl.max(until, 0)
    begin = tl.maximum(start + first_row - local + 1, 0)
    # [begin, all_from): left edge, [all_from, all_to): seen by every row, [all_to, newest]: right
    edge = tl.maximum(tl.maximum(last - local + 1, 0) - begin, 0)
    all_from = begin + tl.cdiv(edge, BLOCK_N) * BLOCK_N
    all_to = all_from + tl.maximum(start + first_row + 1 - all_from, 0) // BLOCK_N * BLOCK_N
    left = (all_from - begin) // BLOCK_N
    right = tl.cdiv(tl.maximum(newest + 1 - all_to, 0), BLOCK_N)
    for i in range(left + right):  # both edges in one loop: half the code
        at = tl.where(i < left, begin + i * BLOCK_N, all_to + (i - left) * BLOCK_N)
        tokens = at + steps
        there = tokens <= newest
        k = _ring_tile(key, tokens, capacity, k_row, cols, there, D, BLOCK_D)
        v = _ring_tile(value, tokens, capacity, v_row, cols, there, D, BLOCK_D)
        distance = asks[:, None] - tokens[None, :]
        if AHEAD:
            seen = (tokens[None, :] <= until[:, None]) & (distance < local)
        else:
            seen = (distance >= 0) & (distance < local)
        best, total, acc = _step(q, k, v, seen, best, total, acc, scale, True, PRECISION)
    for at in range(all_from, all_to, BLOCK_N):
        k = _ring_tile(key, at + steps, capacity, k_row, cols, every, D, BLOCK_D)
        v = _ring_tile(value, at + steps, capacity, v_row, cols, every, D, BLOCK_D)
        best, total, acc = _step(q, k, v, every, best, total, acc, scale, False, PRECISION)
    place = out + (rows.to(tl.int64)[:, None] * HEADS + head) * D + cols[None, :]
    inside = (rows < n)[:, None] & (cols < D)[None, :]
    tl.store(place, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)
