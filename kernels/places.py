"""Where tokens lie among blocks of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def places(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of every token its block and its place there, int64 `[sum(lengths)]` each."""
    count = np.array(lengths, dtype=np.int64)
    block = np.repeat(np.arange(len(count)), count)
    return block, np.arange(len(block)) - (np.cumsum(count) - count)[block]
