"""Farthest point sampling in torch: the executable specification.

As in DivPrune (arXiv 2503.02175): always the visual token farthest from those already chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor


def farthest(points: Tensor) -> Tensor:
    """Squared distances at which points are taken.

    Each time it is the point of its set that is farthest from the origin and those already taken.

    Args:
        points: float32 `[N, T, C]`, N sets.

    Returns:
        float32 `[N, T]`.
    """
    products = points @ points.transpose(1, 2)
    norms = products.diagonal(dim1=1, dim2=2)
    apart = norms[:, :, None] + norms[:, None] - 2 * products
    rows = torch.arange(len(points), device=points.device)
    scores, left = norms.clone(), norms.clone()
    for _ in range(points.shape[1]):  # each choice depends on the one before it
        far, place = left.max(dim=1)
        scores[rows, place] = far
        torch.minimum(left, apart[rows, place], out=left)
        left[rows, place] = -torch.inf
    return scores.clamp_min(0)
