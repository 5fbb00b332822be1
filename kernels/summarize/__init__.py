"""Mean key and landmarks of every block, before RoPE."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.summarize import naive

__all__ = ["summarize"]


def summarize(key: Tensor, tokens: Tensor, landmarks: int) -> Tensor:
    """Summaries of the blocks of one chunk; see `naive.summarize`."""
    if runs_triton(key, key.shape[-1]):
        from mmkv.kernels.summarize import triton

        with on_device(key):
            return triton.summarize(key, tokens, landmarks)
    return naive.summarize(key, tokens, landmarks)
