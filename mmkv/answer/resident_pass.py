"""One question through the language model with all of the packed past in sight.

Sinks, recent frames, prompt and answer stand in one buffer as in retrieval; everything older is
seen at one fixed distance. The two attentions are joined by their log-sum-exp.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.context import Context
from mmkv.answer.resident_past import FarPast
from mmkv.answer.retrieval_pass import RetrievalPass
from mmkv.answer.retriever import LayerChoice, Retriever
from mmkv.archive import CachedBlock
from mmkv.engine.decode_buffers import LayerBuffer, Slot
from mmkv.engine.rotary import Rotary
from mmkv.kernels.buffer_attention import buffer_attention_lse
from mmkv.kernels.packed_attention import packed_attention


class Told(Retriever):
    """Says which blocks match best, for the answer's frames; nothing is loaded."""

    def __init__(self, inner: Retriever) -> None:
        self.count = inner.count
        self._inner = inner

    def scores(self, layer: int, words: Tensor) -> Tensor:
        return self._inner.scores(layer, words)

    def choose(self, layer: int, words: Tensor) -> tuple[LayerChoice, list[CachedBlock]]:
        return self._inner.choose(layer, words)[0], []


class ResidentPass(RetrievalPass):
    """State of one answer.

    Args:
        far: the past, whose distance holds for every token of prompt and answer.
        others: see `RetrievalPass`.
    """

    def __init__(
        self,
        context: Context,
        rotary: Rotary,
        words: Tensor,
        retriever: Retriever,
        room: int,
        slot: Slot,
        far: FarPast,
    ) -> None:
        super().__init__(context, rotary, words, Told(retriever), room, slot)
        self._far = far
        self._far_tables: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    @property
    def outside(self) -> object:
        """What a generated token reads beside the slot's memory: the far past."""
        return self._far

    def _attention(
        self,
        layer: int,
        query: Tensor,
        buffer: LayerBuffer,
        at: int | Tensor,
        table: tuple[Tensor, Tensor],
        scaling: float,
    ) -> Tensor:
        found = buffer_attention_lse(query, buffer.key, buffer.value, at, scaling, table)
        far, table = self._far.layers[layer], self._far_table(query)
        if far.key.shape[2]:
            found = buffer_attention_lse(query, far.key, far.value, None, scaling, table, found)
        for history, visible in far.packed:
            found = packed_attention(query, history, visible, scaling, table, found)
        return found[0].to(query.dtype).transpose(1, 2)

    def _far_table(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The rotation `[n, R]` of queries `[1, H, n, D]` to the one distance."""
        key = (query.device, query.shape[2])
        if key not in self._far_tables:
            at = np.full((len(self._context.anchor), query.shape[2]), self._far.distance)
            self._far_tables[key] = self._rotary(at, query.device, query.dtype)
        return self._far_tables[key]
