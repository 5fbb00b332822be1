"""The contract of a merging policy: what becomes of evicted tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Merge(ABC):
    """Folds a page's evicted visual tokens into kept ones. One policy, one file.

    A kept token keeps its place, whatever is folded into it. Text takes no part.

    Attributes:
        name: what a configuration calls it.
    """

    name: str

    @abstractmethod
    def fold(
        self, key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Kept tokens with the evicted ones folded in.

        Args:
            key, value: `[H, n, D]`, the page's visual tokens, keys before RoPE.
            kept, evicted: int64 `[H, k]` and `[H, e]`, tokens per head, k > 0.

        Returns:
            keys and values `[H, k, D]`, in the order of `kept`.
        """

    def __repr__(self) -> str:
        return f"<merging {self.name}>"
