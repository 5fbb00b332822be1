"""Scores on a GPU: one launch over each part of the index, whose products are never written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCKS = 32  # blocks of the past in a program


def score(words: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """As `naive.score`."""
    count, heads, dim = words.shape
    several, kv_heads = parts[0].shape[1:3]
    words = words.float().contiguous()
    group = heads // kv_heads
    rows, total = count * group, sum(map(len, parts))
    out = torch.empty(count * heads, total, device=words.device)
    start = 0
    for summaries in parts:
        blocks = len(summaries)
        if summaries.stride(3) != 1:
            summaries = summaries.contiguous()
        _score[(triton.cdiv(blocks, _BLOCKS), kv_heads, triton.cdiv(rows, 16))](
            words, summaries, out[:, start:], blocks, several, rows, total,
            *summaries.stride()[:3],
            HEADS=heads, GROUP=group, D=dim, BLOCK_D=triton.next_power_of_2(dim), BLOCKS=_BLOCKS,
            num_warps=4, num_stages=2,
        )  # fmt: skip
        start += blocks
    return out


@triton.jit
def _score(
    words, summaries, out, blocks, several, rows, s_out, s_block, s_summary, s_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    kv = tl.program_id(1)
    row = tl.program_id(2) * 16 + tl.arange(0, 16)  # word and head of the group
    column = tl.arange(0, BLOCK_D)
    inside = (column < D)[None, :]
    place = row // GROUP * HEADS + kv * GROUP + row % GROUP
    asked = row < rows
    there = block < blocks
    query = tl.load(
        words + place[:, None] * D + column[None, :], mask=asked[:, None] & inside, other=0.0
    )
    best = tl.full([16, BLOCKS], float("-inf"), tl.float32)
    at = summaries + block[:, None] * s_block + kv * s_head + column[None, :]
    for i in range(several):
        key = tl.load(at + i * s_summary, mask=there[:, None] & inside, other=0.0)
        logits = tl.dot(query, tl.trans(key.to(tl.float32)), input_precision="tf32x3")
        best = tl.maximum(best, logits, propagate_nan=tl.PropagateNan.ALL)
    spot = out + place[:, None].to(tl.int64) * s_out + block[None, :]
    tl.store(spot, best, mask=asked[:, None] & there[None, :])
