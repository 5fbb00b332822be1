"""Summaries as bytes in a store.

"float16": each vector minus its channels' centre, the stream's first block, so that a key bias of
some hundreds costs no precision. (In 8 bits, a scale per vector, some layers chose other frames.)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv.models.base import Shape

KINDS = ("float16",)


class SummaryFormat:
    """How a store keeps summaries; a stream searches what the store would give back.

    Args:
        kind: one of KINDS.
    """

    def __init__(self, shape: Shape, kind: str = KINDS[0]) -> None:
        self._shape = shape
        self.kind = kind
        self._centre: Tensor | None = None  # [L, 1, H_kv, D]

    def begin(self, rows: Sequence[Tensor]) -> None:
        """Take the centre from the stream's first block; rows per layer `[n, m, H_kv, D]`."""
        if self._centre is None:
            self._centre = torch.stack([layer[0, :1].float().cpu() for layer in rows])

    def facts(self) -> dict[str, Any]:
        """What reading needs, as JSON."""
        centre = None
        if self._centre is not None:
            raw = self._centre.numpy().astype("<f4").tobytes()
            centre = base64.b64encode(raw).decode()
        return {"kind": self.kind, "centre": centre}

    def read_facts(self, facts: Mapping[str, Any]) -> None:
        """Read as a store says."""
        self.kind = facts["kind"]
        if self.kind not in KINDS:
            raise ValueError(
                f"the store's summaries are of a kind {self.kind!r} that this version does not "
                f"know; it knows {', '.join(KINDS)}"
            )
        if facts["centre"] is not None:
            size = (self._shape.layers, 1, self._shape.kv_heads, self._shape.head_dim)
            raw = bytearray(base64.b64decode(facts["centre"]))
            self._centre = torch.from_numpy(np.frombuffer(raw, dtype="<f4").copy()).view(size)

    def rounded(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The summaries as a store gives them back, where they were."""
        again = self.from_bytes(self.to_bytes(rows), len(rows[0]))
        return [new.to(old.device) for new, old in zip(again, rows, strict=True)]

    def to_bytes(self, rows: Sequence[Tensor]) -> bytes:
        """Bytes of summaries given per layer, `[n, m, H_kv, D]` each."""
        stacked = torch.stack([layer.float().cpu() for layer in rows], dim=1)  # [n, L, m, H_kv, D]
        assert self._centre is not None
        return (stacked - self._centre).numpy().astype("<f2").tobytes()

    def from_bytes(self, stored: bytes, count: int) -> list[Tensor]:
        """Summaries of `count` blocks, per layer."""
        layers, heads, width = self._shape.layers, self._shape.kv_heads, self._shape.head_dim
        assert self._centre is not None
        apart = torch.from_numpy(np.frombuffer(bytearray(stored), dtype="<f2"))
        stacked = apart.view(count, layers, -1, heads, width).float() + self._centre
        return [stacked[:, layer].contiguous() for layer in range(layers)]
