"""The score that ReKV's paper writes down (arXiv 2503.00540); its code takes the dot product."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.retrieval.base import Score


class Cosine(Score):
    """Cosine between the words' mean query and a block's mean key, all heads as one vector."""

    name = "cosine"

    def rows(self, words: Tensor, summaries: Tensor) -> Tensor:
        probe = words.mean(dim=0).flatten()
        keys = summaries.flatten(2)
        lengths = probe.norm() * keys.norm(dim=2)
        return (torch.matmul(keys, probe) / lengths.clamp_min(1e-12)).amax(dim=1, keepdim=True)
