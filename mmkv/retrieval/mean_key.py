"""ReKV's score: the question's mean query times a block's mean key (arXiv 2503.00540)."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.score import score
from mmkv.retrieval.base import Score, mean_query


class MeanKey(Score):
    """Dot product of the words' mean query and a block's mean key, summed over the heads."""

    name = "mean-key"

    def rows(self, words: Tensor, summaries: Tensor) -> Tensor:
        means = summaries[:, 0]  # [n, H_kv, D]
        probe = mean_query(words, means.shape[1])
        return score(probe[None], means[:, None])  # [n, H_kv]

    def combine(self, rows: Tensor) -> Tensor:
        return rows.sum(dim=1)
