"""New tokens into a ring or a buffer, their keys rotated on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.rotate_write import naive

__all__ = ["rotate_write", "tokens_of"]


def rotate_write(
    key: Tensor,
    value: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    into_key: Tensor,
    into_value: Tensor,
    at: int | Tensor,
    tokens: Tensor | None = None,
) -> None:
    """Write tokens where they belong, keys rotated; see `naive.rotate_write`."""
    if runs_triton(into_key, into_key.shape[-1]):
        from mmkv.kernels.rotate_write import triton

        with on_device(into_key):
            triton.rotate_write(key, value, rotation, into_key, into_value, at, tokens)
    else:
        naive.rotate_write(key, value, rotation, into_key, into_value, at, tokens)


def tokens_of(key: Tensor, value: Tensor, tokens: Tensor) -> Tensor:
    """Some tokens of each head, int64 `[H, k]`, of keys and values `[H, n, D]`: `[2, H, k, D]`."""
    out = torch.empty((2, *tokens.shape, key.shape[2]), dtype=key.dtype, device=key.device)
    rotate_write(key[None], value[None], None, out[0][None], out[1][None], 0, tokens)
    return out
