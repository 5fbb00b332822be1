"""Summaries as bytes in a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KINDS = ("float32",)


class SummaryFormat:
    """How summaries are stored; what a stream searches is what a store gives back.

    Args:
        layers, kv_heads, head_dim: of the model. kind: element type.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, kind: str = "float32") -> None:
        self._size = (layers, kv_heads, head_dim)
        self.kind = kind

    def to_bytes(self, rows: Sequence[Tensor]) -> bytes:
        """Bytes of summaries given per layer, `[n, m, H_kv, D]` each."""
        stacked = torch.stack([layer.cpu() for layer in rows], dim=1)  # [n, L, m, H_kv, D]
        return stacked.numpy().astype("<f4").tobytes()

    def from_bytes(self, stored: bytes, count: int) -> list[Tensor]:
        """Summaries of `count` blocks, per layer."""
        layers, heads, width = self._size
        flat = np.frombuffer(bytearray(stored), dtype="<f4")
        stacked = torch.from_numpy(flat).view(count, layers, -1, heads, width)
        return [stacked[:, layer] for layer in range(layers)]
