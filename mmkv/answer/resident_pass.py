"""Attention of an answer that sees all of the packed past, `retrieve_frames="all"`.

Sinks, recent frames, prompt and answer stand in one buffer as in retrieval; everything older is
seen at one fixed distance. The two attentions are joined by their log-sum-exp.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.past import Past, Table
from mmkv.answer.resident_past import FarPast
from mmkv.archive import CachedBlock
from mmkv.engine.decode_buffers import LayerBuffer
from mmkv.engine.rotary import Rotary
from mmkv.kernels.buffer_attention import buffer_attention_lse
from mmkv.kernels.packed_attention import packed_attention


class Resident(Past):
    """The packed past on the devices; nothing is loaded.

    Layers choose blocks only to fill the answer's `frames`.

    Args:
        far: what this answer sees of it; its distance holds for every token of prompt and answer.
        rotary: the model's angles.
        axes: of a position.
    """

    def __init__(self, far: FarPast, rotary: Rotary, axes: int) -> None:
        self.far = far
        self._rotary = rotary
        self._axes = axes
        self._tables: dict[tuple[torch.device, int], Table] = {}

    @property
    def outside(self) -> object:
        """The packed past."""
        return self.far

    def loaded(self, chosen: list[CachedBlock]) -> list[CachedBlock]:
        """Return none."""
        return []

    def attend(
        self,
        layer: int,
        query: Tensor,
        buffer: LayerBuffer,
        at: int | Tensor,
        table: Table,
        scaling: float,
    ) -> Tensor:
        """Attend to the buffer and to the packed past, joined by their log-sum-exp."""
        found = buffer_attention_lse(query, buffer.key, buffer.value, at, scaling, table)
        far, table = self.far.layers[layer], self._table(query)
        if far.key.shape[2]:
            found = buffer_attention_lse(query, far.key, far.value, None, scaling, table, found)
        for history, visible in far.packed:
            found = packed_attention(query, history, visible, scaling, table, found)
        return found[0].to(query.dtype).transpose(1, 2)

    def _table(self, query: Tensor) -> Table:
        """Return the rotation `[n, R]` of queries `[1, H, n, D]` to the one distance."""
        key = (query.device, query.shape[2])
        if key not in self._tables:
            at = np.full((self._axes, query.shape[2]), self.far.distance)
            self._tables[key] = self._rotary(at, query.device, query.dtype)
        return self._tables[key]
