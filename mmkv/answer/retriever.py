"""Which blocks a question retrieves in each layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import CachedBlock, Snapshot
from mmkv.retrieval.base import Score, standard
from mmkv.retrieval.choice import choose


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What one layer chose.

    Attributes:
        chosen: block numbers.
        scores: standardised, `[n]`, of the candidates and then of the recent blocks.
    """

    chosen: list[int]
    scores: np.ndarray


class Retriever(ABC):
    """Chooses for one question.

    Args:
        candidates: blocks that may be retrieved, in time order.
        recent: the archive's blocks after them, which are shown anyway; scored too.
        count: blocks retrieved per layer.
        neighbours, chunk: see `mmkv.retrieval.choice.choose`.
    """

    def __init__(
        self,
        candidates: Sequence[CachedBlock],
        recent: Sequence[CachedBlock],
        count: int,
        *,
        neighbours: int = 0,
        chunk: int = 1,
    ) -> None:
        self.count = count
        self._candidates = candidates
        self._neighbours = neighbours
        self._chunk = chunk
        self._runs = runs([*candidates, *recent])

    @property
    def hits(self) -> int:
        """How many of the blocks retrieved in a layer are there for their own score."""
        return -(-self.count * self._chunk // (self._chunk + 2 * self._neighbours))

    @abstractmethod
    def scores(self, layer: int, words: Tensor) -> Tensor:
        """Return scores float32 `[n]` of the candidates and then the recent blocks in one layer.

        Args:
            layer: its number.
            words: the question's words as `Score.rows` takes them.
        """

    def choose(self, layer: int, words: Tensor) -> tuple[LayerChoice, list[CachedBlock]]:
        """Choose the blocks of one layer, in time order. Call it once per layer, in order."""
        if not self._runs:
            return LayerChoice([], np.empty(0)), []
        scores = self.scores(layer, words)
        places = choose(
            scores[: len(self._candidates)],
            self.count,
            neighbours=self._neighbours,
            chunk=self._chunk,
            first=self._runs[0][0],
        )
        blocks = [self._candidates[place] for place in places]
        return LayerChoice([b.index for b in blocks], standard(scores).cpu().numpy()), blocks


class LayerRetriever(Retriever):
    """Every layer chooses for itself, by its own keys (ReKV's internal retrieval)."""

    def __init__(
        self,
        past: Snapshot,
        score: Score,
        candidates: Sequence[CachedBlock],
        recent: Sequence[CachedBlock],
        count: int,
        *,
        neighbours: int = 0,
        chunk: int = 1,
    ) -> None:
        super().__init__(candidates, recent, count, neighbours=neighbours, chunk=chunk)
        self._past = past
        self._score = score

    def scores(self, layer: int, words: Tensor) -> Tensor:
        """Score the layer's summaries of all blocks."""
        parts = [part for run in self._runs for part in self._past.summary_parts(layer, *run)]
        centre = self._past.summary_centre(layer)
        rows = [
            self._score.rows(words.to(device), list(near), centre.to(device)).to(words.device)
            for device, near in groupby(parts, key=lambda part: part.device)
        ]
        return self._score.combine(torch.cat(rows, dim=1))


def runs(blocks: Sequence[CachedBlock]) -> list[tuple[int, int]]:
    """Return the first number, and the last plus one, of each run of blocks without a gap."""
    if not blocks:
        return []
    if blocks[-1].index - blocks[0].index == len(blocks) - 1:
        return [(blocks[0].index, blocks[-1].index + 1)]
    numbers = np.array([block.index for block in blocks])
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]
