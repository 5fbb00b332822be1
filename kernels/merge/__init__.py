"""Evicted tokens folded into the kept ones they resemble."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.merge import naive
from mmkv.kernels.merge.naive import Mode

__all__ = ["Mode", "merge"]


def merge(
    key: Tensor, value: Tensor, kept: Tensor, evicted: Tensor, mode: Mode = "average"
) -> tuple[Tensor, Tensor]:
    """Kept keys and values with the evicted ones folded in; see `naive.merge`."""
    if runs_triton(key, key.shape[-1]):
        from mmkv.kernels.merge import triton

        with on_device(key):
            return triton.merge(key, value, kept, evicted, mode)
    return naive.merge(key, value, kept, evicted, mode)
