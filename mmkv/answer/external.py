"""Retrieval by a text-image model: one choice of frames, shared by all layers.

The language model's own keys are not used. Frames are embedded when they are encoded; the vectors
are kept with the frames, in half precision, and dropped with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.retriever import Retriever
from mmkv.archive import CachedBlock, Snapshot
from mmkv.retrieval.text_image import SIDE, TextImage


class External(Retriever):
    """Cosine of the question and each block by a text-image model.

    Args:
        past: where the blocks' vectors are.
        encoder: what made them.
        text: the question.
        known: vectors read before, by block number; what is read is added.
        candidates, recent, count, neighbours, chunk: see `Retriever`.
    """

    def __init__(
        self,
        past: Snapshot,
        encoder: TextImage,
        text: str,
        known: dict[int, Tensor],
        candidates: Sequence[CachedBlock],
        recent: Sequence[CachedBlock],
        count: int,
        *,
        neighbours: int = 0,
        chunk: int = 1,
    ) -> None:
        super().__init__(candidates, recent, count, neighbours=neighbours, chunk=chunk)
        self._past = past
        self._encoder, self._text = encoder, text
        self._known = known
        self._blocks = [*candidates, *recent]
        self._scores: Tensor | None = None

    def scores(self, layer: int, words: Tensor) -> Tensor:
        """Return the cosines; the same in every layer.

        Raises:
            ValueError: a block has no vector, or one of another encoder.
        """
        if self._scores is None:
            text = self._encoder.text(self._text)
            vectors = torch.stack([self._vector(b, len(text)) for b in self._blocks]).float()
            lengths = vectors.norm(dim=1).clamp_min(1e-6)
            self._scores = vectors @ text / lengths
        return self._scores.to(words.device)

    def _vector(self, block: CachedBlock, size: int) -> Tensor:
        if block.index not in self._known:
            data = self._past.side(SIDE, block)
            if data is None:
                raise ValueError(
                    f"score='external' cannot find frame {block.frame}: it was encoded without "
                    "a text-image model; ask with score='attention'"
                )
            vector = torch.from_numpy(np.frombuffer(data, dtype="<f2").astype(np.float16))
            if len(vector) != size:
                raise ValueError(
                    f"the stream's frames have vectors of {len(vector)} numbers, but encoder= "
                    f"gives {size}; use the text-image model that they were encoded with"
                )
            self._known[block.index] = vector
        return self._known[block.index]
