"""How well blocks of the past match a question's words."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.score import naive

__all__ = ["score"]


def score(words: Tensor, summaries: Tensor) -> Tensor:
    """Log-sum-exp of words times summaries `[n, w * H]`; see `naive.score`."""
    if runs_triton(summaries, summaries.shape[-1]) and words.shape[0]:
        from mmkv.kernels.score import triton

        with on_device(words):
            return triton.score(words, summaries)
    return naive.score(words, summaries)
