"""The score that ReKV's paper writes down (arXiv 2503.00540); its code takes the dot product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkv.retrieval.base import Score, mean_query


class Cosine(Score):
    """Cosine of the words' mean query and a block's mean key, all heads as one vector."""

    name = "cosine"

    def rows(self, words: Tensor, parts: Sequence[Tensor], centre: Tensor) -> Tensor:
        means = torch.cat([part[:, 0] for part in parts]).float() + centre  # [n, H_kv, D]
        probe = mean_query(words, means.shape[1]).flatten()
        lengths = probe.norm() * means.flatten(1).norm(dim=1)
        return (means.flatten(1) @ probe / lengths.clamp_min(1e-12))[None]
