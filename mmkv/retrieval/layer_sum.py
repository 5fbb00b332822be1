"""A later layer also uses what the earlier ones found."""

from __future__ import annotations

from torch import Tensor

from mmkv.retrieval.base import standard
from mmkv.retrieval.mean_key import MeanKey


class LayerSum(MeanKey):
    """ReKV's score, standardised in each layer and added up over the layers so far."""

    name = "layer-sum"

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def combine(self, rows: Tensor) -> Tensor:
        own = standard(super().combine(rows))
        self._sum = own if self._sum is None else self._sum.to(own.device) + own
        return self._sum
