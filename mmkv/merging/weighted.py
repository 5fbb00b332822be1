"""LOOK-M's weighted merging (arXiv 2406.18139), on keys before RoPE."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.merge import merge
from mmkv.merging.base import Merge


class Weighted(Merge):
    """A mean in which evicted tokens weigh as much as they are similar, and those of
    less than average similarity nothing."""

    name = "weighted"

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        return merge(key, value, kept, evicted, "weighted")
