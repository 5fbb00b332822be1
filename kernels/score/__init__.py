"""How well blocks of the past match a question's words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.score import naive

__all__ = ["score"]


def score(words: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Best product of each word with each block's summaries `[w * H, n]`; see `naive.score`."""
    if runs_triton(parts[0], parts[0].shape[-1]) and words.shape[0]:
        from mmkv.kernels.score import triton

        with on_device(words):
            return triton.score(words, parts)
    return naive.score(words, parts)
