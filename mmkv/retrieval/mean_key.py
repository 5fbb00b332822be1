"""ReKV's score: the question's mean query times a block's mean key (arXiv 2503.00540)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.score import score
from mmkv.retrieval.base import Score, mean_query


class MeanKey(Score):
    """Dot product of the words' mean query and a block's mean key, summed over the heads."""

    name = "mean-key"

    def rows(self, words: Tensor, parts: Sequence[Tensor], centre: Tensor) -> Tensor:
        probe = mean_query(words, parts[0].shape[2])
        return score(probe[None], [part[:, :1] for part in parts])  # [H_kv, n]

    def combine(self, rows: Tensor) -> Tensor:
        return rows.sum(dim=0)
