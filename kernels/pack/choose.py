"""Which channels of a group get 4 levels, on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from mmkv.kernels.pack.common import group_of, tile_of


@triton.jit
def choose(
    states, order, wide, tokens, size, s_layer, s_head, s_token, GROUPS: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, WIDE: tl.constexpr,
    FITTED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The channels of the largest variance, or of the widest range over all heads."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PADDED)
    inside = channel < D
    if FITTED:
        base, count = group_of(states, row, tokens, size, s_layer, s_head, s_token, GROUPS, HEADS)
        own = tl.load(base + channel, mask=inside, other=0.0).to(tl.float32)
        total = tl.zeros([TILE, PADDED], tl.float32)
        square = tl.zeros([TILE, PADDED], tl.float32)
        for at in range(0, count, TILE):
            token = at + tl.arange(0, TILE)
            there = (token < count)[:, None] & inside[None, :]
            x = tile_of(base, token, there, s_token, channel)
            x = tl.where(there, x - own[None, :], 0.0)
            total += x
            square += x * x
        mean = tl.sum(total, 0) / count
        spread = tl.sum(square, 0) / count - mean * mean
    else:
        least = tl.full([TILE, PADDED], float("inf"), tl.float32)
        most = tl.full([TILE, PADDED], float("-inf"), tl.float32)
        for head in range(HEADS):
            base, count = group_of(
                states, row // HEADS * HEADS + head, tokens, size, s_layer, s_head, s_token,
                GROUPS, HEADS,
            )  # fmt: skip
            for at in range(0, count, TILE):
                token = at + tl.arange(0, TILE)
                there = (token < count)[:, None] & inside[None, :]
                x = tile_of(base, token, there, s_token, channel)
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
