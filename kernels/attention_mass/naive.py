"""How much attention every key gets, in torch: the executable specification.

The column sums of the attention probabilities (H2O, arXiv 2306.14048; LOOK-M, arXiv 2406.18139),
which are never held all at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.kernels.common.naive import rotate

_MAX_SCORES = 1 << 24  # held at once


def attention_mass(
    query: Tensor,
    key: Tensor,
    scaling: float,
    before: int | None = None,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Attention that keys get, summed over queries and over the query heads of a key head.

    Args:
        query: `[H, n, D]`. key: `[H_kv, m, D]`, rotated.
        before: query i sees keys 0 … before + i; None: every query sees all.
        rotation: of the queries, `[n, R]`; None where they are rotated already.

    Returns:
        float32 `[H_kv, m]`, whose rows add up to n times the query heads of a key head.
    """
    kv_heads, m, dim = key.shape
    n = query.shape[1]
    if rotation is not None:
        query = rotate(query, rotation)
    grouped = query.reshape(kv_heads, -1, dim)  # [H_kv, G * n, D]
    asks = torch.arange(grouped.shape[1], device=query.device) % n
    at = torch.arange(m, device=key.device)
    mass = torch.zeros(kv_heads, m, device=key.device)
    tile = max(1, _MAX_SCORES // (kv_heads * m))
    for part, rows in zip(grouped.split(tile, dim=1), asks.split(tile), strict=True):
        scores = torch.matmul(part, key.transpose(1, 2)).float() * scaling
        if before is not None:
            scores = scores.masked_fill(at > before + rows[:, None], float("-inf"))
        mass += scores.softmax(dim=-1).sum(dim=1)
    return mass
