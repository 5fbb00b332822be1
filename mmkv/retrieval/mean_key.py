"""ReKV's score: the question's mean query times a block's mean key (arXiv 2503.00540)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.retrieval.base import Score


class MeanKey(Score):
    """Dot product of the words' mean query with a block's mean key.

    Of several summaries the best matching one counts.
    """

    name = "mean-key"

    def rows(self, words: Tensor, summaries: Tensor) -> Tensor:
        probe = words.mean(dim=0).flatten()
        return torch.matmul(summaries.flatten(2), probe).amax(dim=1, keepdim=True)
