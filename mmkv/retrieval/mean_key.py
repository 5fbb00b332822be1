"""ReKV's scores (arXiv 2503.00540): the question's mean query against a block's mean key.

A dot product, which the released code uses, or a cosine, which the paper describes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


class Cosine(Score):
    """Cosine of the words' mean query and a block's mean key, all heads as one vector."""

    name = "cosine"

    def rows(self, words: Tensor, parts: Sequence[Tensor], centre: Tensor) -> Tensor:
        means = torch.cat([part[:, 0] for part in parts]).float() + centre  # [n, H_kv, D]
        probe = mean_query(words, means.shape[1]).flatten()
        lengths = probe.norm() * means.flatten(1).norm(dim=1)
        return (means.flatten(1) @ probe / lengths.clamp_min(1e-12))[None]
