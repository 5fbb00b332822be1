"""One question through the language model with all of the packed past in sight.

Sinks, recent frames, prompt and answer stand in one buffer as in retrieval; everything older is
seen at one fixed distance. The two attentions are joined by their log-sum-exp.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mmkv.answer_pass import AnswerPass
from mmkv.archive import ArchivedBlock
from mmkv.context import Context
from mmkv.kernels.packed_attention import join, packed_attention, plain_attention
from mmkv.resident.past import FarLayer, FarPast
from mmkv.retrieval.retriever import LayerChoice, Retriever
from mmkv.rotary import Rotary, rotate


class Told(Retriever):
    """Says which blocks match best, for the answer's frames; nothing is loaded."""

    def __init__(self, inner: Retriever) -> None:
        self.count = inner.count
        self._inner = inner

    def scores(self, layer: int, words: Tensor) -> Tensor:
        return self._inner.scores(layer, words)

    def choose(self, layer: int, words: Tensor) -> tuple[LayerChoice, list[ArchivedBlock]]:
        return self._inner.choose(layer, words)[0], []


class ResidentPass(AnswerPass):
    """State of one answer.

    Args:
        far: the past, whose distance holds for every token of prompt and answer.
        others: see `AnswerPass`.
    """

    def __init__(
        self,
        context: Context,
        rotary: Rotary,
        words: Tensor,
        retriever: Retriever,
        room: int,
        far: FarPast,
    ) -> None:
        super().__init__(context, rotary, words, Told(retriever), room)
        self._far = far

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        n = query.shape[2]
        mask = None
        if layer == len(self._buffers):
            self._buffers.append(self._gather(layer, query, key, scaling))
            mask = self._causal(n, self._buffers[layer].length, query.device)
        buffer = self._buffers[layer]
        table = self._text_table(buffer, n, query)
        at = np.full((len(buffer.start), 1), self._far.distance)
        far_query = rotate(query, self._table(("far",), at, query))
        query = rotate(query, table)
        buffer.extend(rotate(key, table), value)
        joined = plain_attention(
            query,
            buffer.key[:, :, : buffer.length],
            buffer.value[:, :, : buffer.length],
            mask,
            scaling,
        )
        for part in _attentions(far_query, self._far.layers[layer], scaling):
            joined = join(*joined, *part)
        return joined[0].to(value.dtype).transpose(1, 2)


def _attentions(query: Tensor, far: FarLayer, scaling: float) -> list[tuple[Tensor, Tensor]]:
    parts = [
        packed_attention(query, history, begin, end, scaling) for history, begin, end in far.packed
    ]
    if far.key.shape[2]:
        parts.append(plain_attention(query, far.key, far.value, None, scaling))
    return parts
