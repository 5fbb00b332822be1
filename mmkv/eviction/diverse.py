"""Tokens of a frame that are unlike each other: every evicted one has a kept one near it.

Farthest point sampling, as in DivPrune (arXiv 2503.02175), which chooses visual tokens by max-min
distance. Here it runs within each block, since blocks are what a question retrieves, while the
budget is the page's: a block whose tokens differ more keeps more of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames
from mmkv.kernels.farthest import farthest


class Diverse(Eviction):
    """Scores a token by its distance, in key and value together, from what is already covered.

    That is the page's mean and the tokens of its block with higher scores.
    """

    name = "diverse"

    def scores(self, frames: Frames) -> Tensor:
        return farthest(points(frames).flatten(0, 1)).view(frames.key.shape[:3])


def points(frames: Frames) -> Tensor:
    """Keys and values side by side, float32 `[H, F, T, 2 D]`.

    Every channel's mean over the page is subtracted, and keys and values are each scaled to mean
    square 1, so that neither outweighs the other.
    """
    parts = []
    for states in (frames.key.float(), frames.value.float()):
        apart = states - states.mean(dim=(1, 2), keepdim=True)
        size = apart.flatten(1).norm(dim=1) / apart[0].numel() ** 0.5  # [H]
        parts.append(apart / size.clamp_min(1e-30)[:, None, None, None])
    return torch.cat(parts, dim=3)
