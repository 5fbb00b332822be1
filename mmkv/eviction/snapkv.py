"""SnapKV (arXiv 2404.14469): what the last queries look at, spread over neighbouring tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames, observed

_POOL = 5  # tokens, as in the paper's experiments


class SnapKV(Eviction):
    """Attention from the last 32 tokens of a chunk and the text behind it.

    A token's score is the largest among itself and its neighbours in the block, so that details
    stay together with their surroundings.
    """

    name = "snapkv"
    observes: int = 32

    def scores(self, frames: Frames) -> Tensor:
        mass = observed(frames)
        return F.max_pool1d(mass.flatten(0, 1), _POOL, stride=1, padding=_POOL // 2).view_as(mass)
