"""Attention over a buffer on a GPU: only the filled slots are read, in parts side by side.

A program takes some tokens' queries of one key head, rotates them, and walks a part of the slots;
the parts are joined by their log-sum-exp. One token's queries are too few rows to keep a GPU busy
otherwise. Where the tokens stand is read from memory, so a recorded launch can be replayed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.common.triton import rotated

_LOG2_E = 1.4426950408889634
_LN_2 = tl.constexpr(0.6931471805599453)
Table = tuple[Tensor, Tensor]


def buffer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: Table | None = None,
) -> Tensor:
    """As `naive.buffer_attention`."""
    _, heads, n, dim = query.shape
    out = query.new_empty((1, n, heads, dim))
    _run(query, key, value, at, scaling, rotation, out, (dim, heads * dim), None)
    return out


def buffer_attention_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: Table | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `naive.buffer_attention_lse`."""
    _, heads, n, dim = query.shape
    out = query.new_empty((1, heads, n, dim), dtype=torch.float32)
    lse = query.new_empty((1, heads, n), dtype=torch.float32)
    _run(query, key, value, at, scaling, rotation, out, (n * dim, dim), lse, beside)
    return out, lse


def _run(
    query: Tensor, key: Tensor, value: Tensor, at: int | Tensor | None, scaling: float,
    rotation: Table | None, out: Tensor, strides: tuple[int, int], lse: Tensor | None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> None:  # fmt: skip
    """Fill `out`, whose strides over heads and tokens are given, and `lse` if there is one."""
    _, heads, n, dim = query.shape
    kv_heads, slots = key.shape[1:3]
    if query.stride(3) != 1:
        query = query.contiguous()
    assert key.stride(3) == value.stride(3) == 1
    group = heads // kv_heads
    tiles = configs.buffer_tiles(
        configs.capability(query.device), n * group, dim, query.element_size()
    )
    blocks = triton.cdiv(n * group, tiles.rows)
    splits = configs.splits(query.device, blocks * kv_heads, triton.cdiv(slots, tiles.cols))
    cos, sin = rotation if rotation is not None else (query, query)
    parts = query.new_empty((splits, heads, n, dim), dtype=torch.float32)
    sums = query.new_empty((splits, heads, n), dtype=torch.float32)
    _buffer_attention[(blocks, kv_heads, splits)](
        query, key, value, cos, sin, slots if at is None else at, parts, sums, n,
        scaling * _LOG2_E, query.stride(1), query.stride(2), key.stride(1), key.stride(2),
        value.stride(1), value.stride(2),
        HEADS=heads, GROUP=group, D=dim, ROTARY=0 if rotation is None else cos.shape[1],
        CAUSAL=at is not None, FROM_MEMORY=isinstance(at, Tensor),
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        BLOCK_M=tiles.rows, BLOCK_N=tiles.cols, BLOCK_D=triton.next_power_of_2(dim),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    other, other_lse = (sums, sums) if beside is None else (t.contiguous() for t in beside)
    _join[(n, heads)](
        parts, sums, out, sums if lse is None else lse, other, other_lse, splits, *strides,
        HEADS=heads, D=dim, LSE=lse is not None, BESIDE=beside is not None,
        BLOCK=triton.next_power_of_2(splits),
        BLOCK_D=triton.next_power_of_2(dim), num_warps=1 if splits <= 32 else 4,
    )  # fmt: skip


@triton.jit
def _tile(states, slots, row, end, cols, MASKED: tl.constexpr, D: tl.constexpr,
          BLOCK_D: tl.constexpr):  # fmt: skip
    at = states + slots.to(tl.int64)[:, None] * row + cols[None, :]
    if MASKED:
        return tl.load(at, mask=(slots < end)[:, None] & (cols < D)[None, :], other=0.0)
    if BLOCK_D != D:
        return tl.load(at, mask=(cols < D)[None, :], other=0.0)
    return tl.load(at)


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


@triton.jit(do_not_specialize=["at", "n"])
def _buffer_attention(
    query, key, value, cos, sin, at, parts, sums, n, scale,
    q_head, q_row, k_head, k_row, v_head, v_row,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, ROTARY: tl.constexpr,
    CAUSAL: tl.constexpr, FROM_MEMORY: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    block, kv, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    token, head = rows // GROUP, kv * GROUP + rows % GROUP  # [M]
    cols, steps = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    here = token < n
    first = at
    if FROM_MEMORY:
        first = tl.load(at)
    first = first.to(tl.int32)
    some, every = first, first  # slots that some row sees, and that every row sees
    if CAUSAL:
        every = first + block * BLOCK_M // GROUP + 1
        some = first + tl.minimum((block * BLOCK_M + BLOCK_M - 1) // GROUP, n - 1) + 1
    own = tl.cdiv(tl.cdiv(some, BLOCK_N), tl.num_programs(2)) * BLOCK_N
    begin = split * own
    end = tl.minimum(begin + own, some)
    middle = begin + tl.maximum(tl.minimum(every, end) - begin, 0) // BLOCK_N * BLOCK_N
    offsets = head.to(tl.int64) * q_head + token.to(tl.int64) * q_row
    q = rotated(query, offsets, token, here, cols, cos, sin, D, ROTARY)
    key += kv.to(tl.int64) * k_head
    value += kv.to(tl.int64) * v_head
    best = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for slot in range(begin, middle, BLOCK_N):
        k = _tile(key, slot + steps, k_row, end, cols, False, D, BLOCK_D)
        v = _tile(value, slot + steps, v_row, end, cols, False, D, BLOCK_D)
        best, total, acc = _step(q, k, v, here, best, total, acc, scale, False, PRECISION)
    for slot in range(middle, end, BLOCK_N):
        slots = slot + steps
        k = _tile(key, slots, k_row, end, cols, True, D, BLOCK_D)
        v = _tile(value, slots, v_row, end, cols, True, D, BLOCK_D)
        seen = (slots < end)[None, :] & here[:, None]
        if CAUSAL:
            seen = seen & (slots[None, :] <= first + token[:, None])
        best, total, acc = _step(q, k, v, seen, best, total, acc, scale, True, PRECISION)
    empty = total == 0
    spot = (split.to(tl.int64) * HEADS + head) * n + token
    out = tl.where(empty[:, None], 0.0, acc / tl.where(empty, 1.0, total)[:, None])
    inside = here[:, None] & (cols < D)[None, :]
    tl.store(parts + spot[:, None] * D + cols[None, :], out, mask=inside)
    tl.store(sums + spot, tl.where(empty, float("-inf"), best + tl.log2(total)), mask=here)


@triton.jit(do_not_specialize=["splits"])
def _join(
    parts, sums, out, lse, other, other_lse, splits, out_head, out_row,
    HEADS: tl.constexpr, D: tl.constexpr, LSE: tl.constexpr, BESIDE: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    token, head, n = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    split, cols = tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    own = head.to(tl.int64) * n + token
    each = HEADS * n  # from one split to the next
    logs = tl.load(sums + own + split * each, mask=split < splits, other=float("-inf"))
    best = tl.max(logs, 0)
    acc = tl.zeros([BLOCK_D], tl.float32)
    if BESIDE:
        beside = tl.load(other_lse + own) / _LN_2
        best = tl.maximum(best, beside)
        weight = tl.exp2(beside - best)
        acc = weight * tl.load(other + own.to(tl.int64) * D + cols, mask=cols < D, other=0.0)
    total = tl.sum(tl.exp2(logs - best), 0)
    if BESIDE:
        total += weight
    for i in range(splits):
        weight = tl.exp2(tl.load(sums + own + i * each) - best)
        part = parts + (own + i * each) * D + cols
        acc += weight * tl.load(part, mask=cols < D, other=0.0)
    spot = out + head.to(tl.int64) * out_head + token.to(tl.int64) * out_row + cols
    tl.store(spot, (acc / total).to(out.dtype.element_ty), mask=cols < D)
    if LSE:
        tl.store(lse + own, (best + tl.log2(total)) * _LN_2)
