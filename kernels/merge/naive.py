"""Folding evicted tokens into kept ones, in torch: the executable specification.

Every evicted token goes to the kept one whose key is most similar by cosine, and its value goes
with it (LOOK-M, arXiv 2406.18139; here on keys before RoPE).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mmkv.kernels.rotate_write.naive import picked

Mode = Literal["average", "pivot", "weighted"]
_MAX_SIMILARITIES = 1 << 24  # held at once


def merge(
    key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor, mode: Mode = "average"
) -> tuple[Tensor, Tensor]:
    """Kept tokens after the evicted ones are folded in.

    Args:
        key, value: `[H, n, D]`. kept, evicted: int64 `[H, k]`, `[H, e]`, tokens per head, k > 0.
        mode: "average": the mean of a kept token and all that go to it. "pivot": the same, each
            of them first averaged with the kept token. "weighted": a mean weighted by their
            similarity, in which those of less than average similarity count for nothing.

    Returns:
        keys and values `[H, k, D]`.

    Raises:
        ValueError: the mode is not one of these, or there is no kept token.
    """
    check(kept, mode)
    nearest, similarity = nearest_kept(key, kept, evicted)
    weight, blend = weights(similarity, mode)
    total = torch.zeros(kept.shape, device=key.device).scatter_add_(1, nearest, weight)
    return (
        _mean(key, kept, evicted, nearest, weight, total, blend),
        _mean(value, kept, evicted, nearest, weight, total, blend),
    )


def check(kept: Tensor, mode: str) -> None:
    """Raise ValueError if the mode is not known, or there is nothing to merge into."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r} is not known; use {', '.join(map(repr, get_args(Mode)))}")
    if kept.shape[1] == 0:
        raise ValueError("no token is kept, so evicted ones cannot be merged; keep at least one")


def nearest_kept(key: Tensor, kept: Tensor, evicted: Tensor) -> tuple[Tensor, Tensor]:
    """Place among the kept tokens, int64 `[H, e]`, and cosine, float32 `[H, e]`."""
    pivots = torch.nn.functional.normalize(_rows(key, kept), dim=2).transpose(1, 2)
    tile = max(1, _MAX_SIMILARITIES // (kept.shape[0] * kept.shape[1]))
    found = []
    for part in evicted.split(tile, dim=1):
        rows = torch.nn.functional.normalize(_rows(key, part), dim=2)
        found.append(torch.matmul(rows, pivots).max(dim=2))
    values = torch.cat([f.values for f in found], dim=1)
    return torch.cat([f.indices for f in found], dim=1), values


def weights(similarity: Tensor, mode: Mode) -> tuple[Tensor, float]:
    """How much an evicted token weighs `[H, e]`, and its share of itself once blended."""
    if mode == "weighted":
        above = similarity > similarity.mean(dim=1, keepdim=True)
        return torch.where(above, similarity.clamp_min(0.0), 0.0), 1.0
    return torch.ones_like(similarity), 0.5 if mode == "pivot" else 1.0


def _rows(states: Tensor, tokens: Tensor) -> Tensor:
    return picked(states, tokens).float()


def _mean(
    states: Tensor, kept: Tensor, evicted: Tensor, nearest: Tensor, weight: Tensor, total: Tensor,
    blend: float,
) -> Tensor:  # fmt: skip
    pivots = _rows(states, kept)
    # each evicted token counts as blend * itself + (1 - blend) * its pivot
    out = pivots * (1 + (1 - blend) * total)[..., None]
    rows = _rows(states, evicted) * (blend * weight)[..., None]
    out.scatter_add_(1, nearest[..., None].expand_as(rows), rows)
    return (out / (1 + total)[..., None]).to(states.dtype)
