"""What a score is: how well blocks of the past match a question, in one layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor


class Score(ABC):
    """Compares a question's words with the blocks' summaries. One object serves one question.

    `rows` sees some blocks at a time, so that a long past need not be on the device at once;
    `combine` then sees all of them.

    Attributes:
        name: what a configuration calls it.
    """

    name: ClassVar[str]

    @abstractmethod
    def rows(self, words: Tensor, parts: Sequence[Tensor], centre: Tensor) -> Tensor:
        """What can be computed for each block by itself.

        Args:
            words: float32 `[w, H, D]`, queries of the words before RoPE, times the attention scale.
            parts: summaries `[n_i, m, H_kv, D]` of consecutive blocks, keys before RoPE minus the
                centre: each block's mean, then its landmarks if there are any.
            centre: float32 `[H_kv, D]`; it adds the same to a word's products with all blocks.

        Returns:
            float32 `[c, n]`, rows of any meaning, a column for each block.
        """

    def combine(self, rows: Tensor) -> Tensor:
        """Scores `[n]`, higher is better, from the rows `[c, n]` of all blocks.

        Called once per layer, in the layers' order.
        """
        return rows.mean(dim=0)


def mean_query(words: Tensor, kv_heads: int) -> Tensor:
    """The words' mean query `[H_kv, D]`, summed over the query heads of each key head."""
    return words.mean(dim=0).unflatten(0, (kv_heads, -1)).sum(dim=1)


def standard(scores: Tensor) -> Tensor:
    """Scores `[n]` minus their mean, over their standard deviation: comparable between layers.

    Zeros where they differ by no more than rounding.
    """
    spread, mean = torch.std_mean(scores, correction=0)
    rounding = 4 * torch.finfo(scores.dtype).eps * mean.abs()
    return torch.where(spread > rounding, (scores - mean) / spread, 0.0)
