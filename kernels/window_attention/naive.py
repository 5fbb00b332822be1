"""Window attention in torch: the executable specification.

Every query sees the window's keys at their true distances, and the sinks that have left its
window at one fixed distance, under one softmax (InfLLM, arXiv 2402.04617).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.kernels.common.naive import rotate

# scores held at once where the softmax is written out; longer chunks run in tiles of queries
_MAX_SCORES = 1 << 25
# torch's fused CPU attention that also returns the log-sum-exp; grouped heads as of 2.13
_HAS_FUSED = torch.__version__ >= "2.13"

Table = tuple[Tensor, Tensor]  # cosines and sines [n, R]


@dataclass(frozen=True)
class Chunk:
    """A chunk of a stream: tokens start … start + n - 1, written to the ring already.

    Token i sees token j if 0 <= i - j < local; token j stands in slot j % capacity.
    Attributes:
        last: int64 `[n]`, for each query the last token that it sees, where that is not itself.
        near: rotation of the chunk's queries.
        far: the same at the fixed distance at which they see sinks out of their window, None where
            no query has lost one.
        sinks: how many sinks there are.
    """

    start: int
    n: int
    local: int
    capacity: int
    near: Table
    far: Table | None = None
    sinks: int = 0
    last: Tensor | None = None

    @property
    def filled(self) -> int:
        """Slots of the ring in use."""
        return min(self.start + self.n, self.capacity)

    def newest(self, rows: int) -> Chunk:
        """The same with its last queries alone."""
        if rows == self.n:
            return self
        first = self.n - rows
        near, far = self.near, self.far
        return replace(
            self,
            start=self.start + first,
            n=rows,
            near=(near[0][first:], near[1][first:]),
            far=None if far is None else (far[0][first:], far[1][first:]),
            last=None if self.last is None else self.last[first:],
        )

    @cached_property
    def bias(self) -> Tensor:
        """`[n, filled]`: 0 where a query sees the token in a slot, else -inf."""
        device = self.near[0].device
        newest = self.start + self.n - 1
        slots = torch.arange(self.filled, device=device)
        held = newest - (newest - slots) % self.capacity  # the token in each slot
        asks = torch.arange(self.start, newest + 1, device=device)
        last = asks if self.last is None else self.last
        return _bias((held <= last[:, None]) & (asks[:, None] - held < self.local))

    @cached_property
    def far_bias(self) -> Tensor:
        """`[n, sinks]`: 0 where a sink is out of a query's window, else -inf."""
        device = self.near[0].device
        asks = torch.arange(self.start, self.start + self.n, device=device)
        gone = asks[:, None] - torch.arange(self.sinks, device=device) >= self.local
        return _bias(gone)


@dataclass(frozen=True, slots=True)
class FarSinks:
    """Sinks as a query that no longer has them in its window sees them.

    query: `[1, H, n, D]`, rotated to the fixed distance. key, value: `[1, H_kv, s, D]`.
    bias: `[n, s]`, 0 where the sink is out of the query's window, else -inf.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor


def window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chunk: Chunk,
    sinks: tuple[Tensor, Tensor] | None,
    scaling: float,
) -> Tensor:
    """Attention of a chunk over sinks, ring window and itself; nothing of the window is copied.

    Args:
        query: `[1, H, n, D]`, before RoPE.
        key, value: the ring `[1, H_kv, capacity, D]`, rotated.
        sinks: keys (rotated as seen from afar) and values `[1, H_kv, s, D]`, None if there are
            none.

    Returns:
        `[1, n, H, D]`.
    """
    far = None
    if chunk.far is not None and sinks is not None:
        far = FarSinks(rotate(query, chunk.far), *sinks, chunk.far_bias)
    held = (key[:, :, : chunk.filled], value[:, :, : chunk.filled])
    bias = chunk.bias.to(query.dtype)
    return masked_attention(rotate(query, chunk.near), *held, bias, far, scaling)


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    far: FarSinks | None,
    scaling: float,
) -> Tensor:
    """Attention over keys in any order and far sinks.

    Args:
        query: `[1, H, n, D]`, rotated. key, value: `[1, H_kv, m, D]`, rotated.
        bias: `[n, m]` in the query's dtype, 0 where the query sees the key, else -inf;
            every row admits at least one key.

    Returns:
        `[1, n, H, D]`.
    """
    if far is None:
        gqa = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=scaling, enable_gqa=gqa
        )
        return out.transpose(1, 2)
    near, near_lse = _attend(query, key, value, bias, scaling)  # [1, H, n, D], [1, H, n]
    sinks = _scores(far.query, far.key, far.bias, scaling)  # [H_kv, G, n, s]
    kv, group, n, _ = sinks.shape
    near_lse = near_lse.view(kv, group, n)
    lse = torch.logaddexp(near_lse, sinks.logsumexp(dim=-1))
    weights = (sinks - lse[..., None]).exp().to(value.dtype)
    out = near.view(kv, group, n, -1) * (near_lse - lse).exp()[..., None].to(near.dtype)
    out += torch.matmul(weights.view(kv, group * n, -1), far.value[0]).view_as(out)
    return out.view(1, kv * group, n, -1).transpose(1, 2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    if _HAS_FUSED and query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=bias, scale=scaling
        )
        return out.contiguous(), lse.contiguous()
    tile = max(1, _MAX_SCORES // (query.shape[1] * key.shape[2]))
    outs, sums = [], []
    for part, rows in zip(query.split(tile, dim=2), bias.split(tile), strict=True):
        scores = _scores(part, key, rows, scaling)
        kv, group, n, _ = scores.shape
        sums.append(scores.logsumexp(dim=-1).view(1, kv * group, n))
        weights = scores.softmax(dim=-1).to(value.dtype).view(kv, group * n, -1)
        outs.append(torch.matmul(weights, value[0]).view(1, kv * group, n, -1))
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


def _scores(query: Tensor, key: Tensor, bias: Tensor, scaling: float) -> Tensor:
    heads, kv, n = query.shape[1], key.shape[1], query.shape[2]
    grouped = query.reshape(kv, heads // kv * n, -1)  # a key head's queries side by side
    scores = torch.matmul(grouped, key[0].transpose(1, 2)).float().mul_(scaling)
    return scores.view(kv, heads // kv, n, -1) + bias


def _bias(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
