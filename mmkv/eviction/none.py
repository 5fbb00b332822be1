"""Nothing is evicted."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames


class Nothing(Eviction):
    """Every token is worth the same, and with this name in a configuration all are kept."""

    name = "none"

    def scores(self, frames: Frames) -> Tensor:
        return torch.zeros(frames.key.shape[:3])
