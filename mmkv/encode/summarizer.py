"""What a block is found by: its mean key, and the keys of its most unusual tokens.

A small object has only a few of a frame's tokens, and is lost in the mean. Landmarks are tokens
chosen to be far from the mean and from each other (farthest point sampling), so that what is
different about a frame is among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.summarize import summarize


class Summarizer:
    """Summarises the blocks of one chunk, layer by layer.

    Args:
        visual: bool `[n]`, the chunk's visual tokens.
        lengths: tokens of each of its blocks, all of which have equally many visual ones.
        landmarks: tokens kept besides the mean.
    """

    def __init__(self, visual: Tensor, lengths: Sequence[int], landmarks: int) -> None:
        self._tokens = visual.nonzero().view(len(lengths), -1)  # [blocks, T]
        self._landmarks = landmarks

    def __call__(self, key: Tensor) -> Tensor:
        """Return float32 `[blocks, 1 + landmarks, H_kv, D]` of keys `[H_kv, n, D]`, mean first.

        A block with fewer tokens than landmarks repeats some.
        """
        return summarize(key, self._tokens.to(key.device), self._landmarks)
