"""LOOK-M's pivot merging (arXiv 2406.18139), on keys before RoPE."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.merge import merge
from mmkv.merging.base import Merge


class Pivot(Merge):
    """As `average`, each evicted token first averaged with the kept one it goes to."""

    name = "pivot"

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        return merge(key, value, kept, evicted, "pivot")
