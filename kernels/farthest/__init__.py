"""How far every point is from those that are farther out: farthest point sampling."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.farthest import naive

__all__ = ["farthest"]


def farthest(points: Tensor) -> Tensor:
    """At what distance each point is taken; see `naive.farthest`."""
    if runs_triton(points) and points.numel():
        from mmkv.kernels.farthest import triton

        with on_device(points):
            return triton.farthest(points)
    return naive.farthest(points)
