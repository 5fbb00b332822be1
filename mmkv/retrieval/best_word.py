"""A question is mostly words that fit every block alike; the one that tells them apart decides."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.retrieval.base import Score, standard


class BestWord(Score):
    """Each word's dot products with the mean keys, standardised over the blocks; the best counts.

    The mean query of ReKV adds up all words, so that a block which fits "where was the" well hides
    one that fits "circle".
    """

    name = "best-word"

    def rows(self, words: Tensor, summaries: Tensor) -> Tensor:
        return torch.matmul(summaries.flatten(2), words.flatten(1).T).amax(dim=1)  # [n, w]

    def combine(self, rows: Tensor) -> Tensor:
        return standard(rows).amax(dim=1)
