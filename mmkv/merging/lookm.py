"""LOOK-M's three mergings (arXiv 2406.18139), on keys before RoPE."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from mmkv.kernels.merge import merge
from mmkv.merging.base import Merge


class LookM(Merge):
    """Folds every evicted token into the kept one whose key is most similar.

    Attributes:
        mode: how it is folded in; see `kernels/merge/naive.py`.
    """

    mode: ClassVar[Literal["average", "pivot", "weighted"]]

    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        return merge(key, value, kept, evicted, self.mode)


class Average(LookM):
    """A kept token becomes the mean of itself and all that resemble it most."""

    name = mode = "average"


class Pivot(LookM):
    """As `average`, but each evicted token is first averaged with the kept one it goes to."""

    name = mode = "pivot"


class Weighted(LookM):
    """A mean that weighs evicted tokens by their similarity; those below average by nothing."""

    name = mode = "weighted"
