"""What is kept of a block to find it by, in torch: its mean key, and its most unusual keys.

Landmarks are tokens far from the mean and from each other, found by farthest point sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor


def summarize(key: Tensor, tokens: Tensor, landmarks: int) -> Tensor:
    """Summaries of the blocks of one chunk.

    Args:
        key: `[H_kv, n, D]`, before RoPE.
        tokens: int64 `[blocks, T]`, each block's visual tokens.
        landmarks: tokens kept beside the mean; a block with fewer tokens repeats some.

    Returns:
        float32 `[blocks, 1 + landmarks, H_kv, D]`, the mean first.
    """
    keys = key[:, tokens].float().permute(1, 2, 0, 3)  # [blocks, T, H_kv, D]
    found = [keys.mean(dim=1)]
    flat = keys.flatten(2)
    nearest = torch.full(flat.shape[:2], torch.inf, device=key.device)  # [blocks, T]
    rows = torch.arange(len(flat), device=key.device)
    for _ in range(landmarks):
        distance = (flat - found[-1].flatten(1)[:, None]).square().sum(dim=-1)
        nearest = torch.minimum(nearest, distance)
        found.append(keys[rows, nearest.argmax(dim=1)])
    return torch.stack(found, dim=1)
