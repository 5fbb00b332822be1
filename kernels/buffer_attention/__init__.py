"""Attention of a prompt, or of one generated token, over the buffer it stands in."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.buffer_attention import naive
from mmkv.kernels.dispatch import on_device, runs_triton

__all__ = ["buffer_attention", "buffer_attention_lse"]


def buffer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Attention over what a buffer holds so far; see `naive.buffer_attention`."""
    if runs_triton(query, query.shape[-1]):
        from mmkv.kernels.buffer_attention import triton

        with on_device(query):
            return triton.buffer_attention(query, key, value, at, scaling, rotation)
    return naive.buffer_attention(query, key, value, at, scaling, rotation)


def buffer_attention_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, to be joined with other attention; see `naive.buffer_attention_lse`."""
    if runs_triton(query, query.shape[-1]):
        from mmkv.kernels.buffer_attention import triton

        with on_device(query):
            return triton.buffer_attention_lse(query, key, value, at, scaling, rotation, beside)
    return naive.buffer_attention_lse(query, key, value, at, scaling, rotation, beside)
