"""Frames spread evenly over what a question may see: for summaries, which fit all frames alike.

This is the usual sampling of video language models, here over the archive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.retriever import LayerChoice, Retriever
from mmkv.archive import CachedBlock


class Uniform(Retriever):
    """The same blocks in every layer, the first and the last of the candidates among them."""

    def __init__(
        self, candidates: Sequence[CachedBlock], recent: Sequence[CachedBlock], count: int
    ) -> None:
        super().__init__(candidates, recent, count)
        self._scored = len(candidates) + len(recent)

    def scores(self, layer: int, words: Tensor) -> Tensor:
        """Return zeros: no block matches better than another."""
        return torch.zeros(self._scored, device=words.device)

    def choose(self, layer: int, words: Tensor) -> tuple[LayerChoice, list[CachedBlock]]:
        """Choose `count` evenly spread candidates, or all if they are fewer."""
        n = len(self._candidates)
        places = np.unique(np.linspace(0, n - 1, min(self.count, n)).round().astype(int)).tolist()
        blocks = [self._candidates[place] for place in places]
        return LayerChoice([b.index for b in blocks], np.zeros(self._scored)), blocks
