"""What a score is: how well blocks of the past match a question, in one layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor


class Score(ABC):
    """Compares a question's words with the blocks' summaries. One object serves one question.

    `rows` sees some blocks at a time, so that a long past need not be on the device at once;
    `combine` then sees all of them.
    """

    name: ClassVar[str]

    @abstractmethod
    def rows(self, words: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """What can be said of each block by itself.

        Args:
            words: float32 `[w, H, D]`, the words' queries before RoPE, times the attention's scale.
            parts: summaries float32 `[n_i, m, H_kv, D]` of consecutive blocks, keys before RoPE:
                each block's mean, then its landmarks if there are any.

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
    """`[n, ...]` less the mean over the n, over their spread: comparable between layers."""
    spread = scores.std(dim=0, correction=0).clamp_min(1e-12)
    return (scores - scores.mean(dim=0)) / spread
