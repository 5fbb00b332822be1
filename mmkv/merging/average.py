"""LOOK-M's average merging (arXiv 2406.18139), on keys before RoPE."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.merge import merge
from mmkv.merging.base import Merge


class Average(Merge):
    """A kept token becomes the mean of itself and all that resemble it most."""

    name = "average"

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        return merge(key, value, kept, evicted, "average")
