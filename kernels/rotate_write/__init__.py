"""New tokens into a ring or a buffer, their keys rotated on the way."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.rotate_write import naive

__all__ = ["rotate_write"]


def rotate_write(
    key: Tensor,
    value: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    into_key: Tensor,
    into_value: Tensor,
    at: int | Tensor,
) -> None:
    """Write tokens where they belong, keys rotated; see `naive.rotate_write`."""
    if runs_triton(into_key, into_key.shape[-1]):
        from mmkv.kernels.rotate_write import triton

        with on_device(into_key):
            triton.rotate_write(key, value, rotation, into_key, into_value, at)
    else:
        naive.rotate_write(key, value, rotation, into_key, into_value, at)
