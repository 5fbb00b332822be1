"""What is kept of a block for finding it: its mean key, and the keys of its most unusual tokens.

A small object is a few of a frame's tokens, and drowns in the mean. Landmarks are tokens chosen to
be far from the mean and from each other (farthest point sampling), so that what is different about
a frame is among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Summarizer:
    """Summarises the blocks of one chunk, layer by layer.

    Args:
        visual: bool `[n]`, the chunk's visual tokens. lengths: tokens of each of its blocks, all
            of which have equally many visual ones. landmarks: tokens kept beside the mean.
    """

    def __init__(self, visual: Tensor, lengths: Sequence[int], landmarks: int) -> None:
        self._tokens = visual.nonzero().view(len(lengths), -1)  # [blocks, T]
        self._landmarks = landmarks

    def __call__(self, key: Tensor) -> Tensor:
        """Summaries float32 `[blocks, 1 + landmarks, H_kv, D]` of keys `[H_kv, n, D]`, mean first.

        A block with fewer tokens than landmarks repeats some.
        """
        tokens = self._tokens.to(key.device)
        keys = key[:, tokens].float().permute(1, 2, 0, 3)  # [blocks, T, H_kv, D]
        found = [keys.mean(dim=1)]
        flat = keys.flatten(2)
        nearest = torch.full(flat.shape[:2], torch.inf, device=key.device)  # [blocks, T]
        rows = torch.arange(len(flat), device=key.device)
        for _ in range(self._landmarks):
            distance = (flat - found[-1].flatten(1)[:, None]).square().sum(dim=-1)
            nearest = torch.minimum(nearest, distance)
            found.append(keys[rows, nearest.argmax(dim=1)])
        return torch.stack(found, dim=1)
