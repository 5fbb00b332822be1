"""Evicted tokens are dropped."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.rotate_write import tokens_of
from mmkv.merging.base import Merge


class NoMerge(Merge):
    """Kept tokens stay as they are."""

    name = "none"

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        left = tokens_of(key, value, kept)
        return left[0], left[1]
