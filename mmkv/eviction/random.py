"""The control: tokens drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames


class Random(Eviction):
    """Equally many tokens of every block, drawn for each head; the same for the same page."""

    name = "random"
    across: bool = False

    def scores(self, frames: Frames) -> Tensor:
        generator = torch.Generator().manual_seed(frames.first)
        return torch.rand(frames.key.shape[:3], generator=generator)
