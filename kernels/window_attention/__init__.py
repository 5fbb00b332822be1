"""Attention of a chunk over sinks, ring window and itself."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.window_attention import naive
from mmkv.kernels.window_attention.naive import Chunk

__all__ = ["Chunk", "window_attention"]


def window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chunk: Chunk,
    sinks: tuple[Tensor, Tensor] | None,
    scaling: float,
) -> Tensor:
    """Attention of a chunk over sinks, ring window and itself; see `naive.window_attention`."""
    if runs_triton(query, query.shape[-1]):
        from mmkv.kernels.window_attention import triton

        with on_device(query):
            return triton.window_attention(query, key, value, chunk, sinks, scaling)
    return naive.window_attention(query, key, value, chunk, sinks, scaling)
