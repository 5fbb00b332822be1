"""Window attention in torch: the executable specification.

Every query sees the window's keys that its mask admits, at their true distances, and the sinks
that have left its window at one fixed distance, under one softmax (InfLLM, arXiv 2402.04617).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# scores held at once; longer chunks run in tiles of queries
_MAX_SCORES = 1 << 25


@dataclass(frozen=True, slots=True)
class FarSinks:
    """Sinks as a query that no longer has them in its window sees them.

    query: `[1, H, n, D]`, rotated to the fixed distance. key, value: `[1, H_kv, s, D]`.
    visible: bool `[n, s]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor


def window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    far: FarSinks | None,
    scaling: float,
) -> Tensor:
    """Attention over a ring buffer and far sinks; nothing of the window is copied.

    Args:
        query: `[1, H, n, D]`, rotated. key, value: `[1, H_kv, m, D]`, rotated, in any order.
        visible: bool `[n, m]`; every row admits at least one key.

    Returns:
        `[1, n, H, D]`.
    """
    n, m = visible.shape
    if far is None:
        gqa = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, scale=scaling, enable_gqa=gqa
        )
        return out.transpose(1, 2)
    tile = max(1, _MAX_SCORES // (query.shape[1] * (m + far.key.shape[2])))
    outs = [
        _tile(query, key, value, visible, far, scaling, slice(start, start + tile))
        for start in range(0, n, tile)
    ]
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


def _tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    far: FarSinks,
    scaling: float,
    rows: slice,
) -> Tensor:
    near = _scores(query[:, :, rows], key, visible[rows], scaling)  # [G_kv, G, n, m]
    sinks = _scores(far.query[:, :, rows], far.key, far.visible[rows], scaling)
    joint = torch.cat([sinks, near], dim=-1).softmax(dim=-1).to(value.dtype)
    s = sinks.shape[-1]
    kv, group, n, _ = joint.shape
    out = torch.matmul(joint[..., s:].reshape(kv, group * n, -1), value[0])
    out += torch.matmul(joint[..., :s].reshape(kv, group * n, -1), far.value[0])
    return out.view(1, kv * group, n, -1).transpose(1, 2)


def _scores(query: Tensor, key: Tensor, visible: Tensor, scaling: float) -> Tensor:
    heads, kv, n = query.shape[1], key.shape[1], query.shape[2]
    grouped = query.reshape(kv, heads // kv * n, -1)  # a key head's queries side by side
    scores = torch.matmul(grouped, key[0].transpose(1, 2)).float().mul_(scaling)
    scores = scores.view(kv, heads // kv, n, -1)
    return scores.masked_fill_(~visible, float("-inf"))
