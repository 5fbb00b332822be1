"""Evicted tokens are gone."""

from __future__ import annotations

from torch import Tensor

from mmkv.merging.base import Merge


class NoMerge(Merge):
    """Kept tokens stay as they are."""

    name = "none"

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        place = kept[..., None].expand(-1, -1, key.shape[2])
        return key.gather(1, place), value.gather(1, place)
