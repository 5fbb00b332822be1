"""Attention of a few queries over packed history, to be joined with other attention."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.packed_attention import naive
from mmkv.kernels.packed_attention.history import Compact, PackedHistory, compact
from mmkv.kernels.packed_attention.naive import resident_keys, resident_values, slot_bits

__all__ = [
    "Compact",
    "PackedHistory",
    "compact",
    "packed_attention",
    "resident_keys",
    "resident_values",
    "slot_bits",
]


def packed_attention(
    query: Tensor,
    history: PackedHistory,
    visible: Tensor,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of a few queries over a packed history; see `naive.packed_attention`."""
    if runs_triton(query, query.shape[-1]):
        from mmkv.kernels.packed_attention import triton

        if triton.supports(history):
            with on_device(query):
                return triton.packed_attention(query, history, visible, scaling, rotation, beside)
    return naive.packed_attention(query, history, visible, scaling, rotation, beside)
