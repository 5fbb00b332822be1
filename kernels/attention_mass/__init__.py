"""How much attention every key gets."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.attention_mass import naive
from mmkv.kernels.dispatch import on_device, runs_triton

__all__ = ["attention_mass"]


def attention_mass(
    query: Tensor,
    key: Tensor,
    scaling: float,
    before: int | None = None,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Column sums of attention probabilities `[H_kv, m]`; see `naive.attention_mass`."""
    if runs_triton(key, key.shape[-1]) and query.shape[1] and key.shape[1]:
        from mmkv.kernels.attention_mass import triton

        with on_device(query):
            return triton.attention_mass(query, key, scaling, before, rotation)
    return naive.attention_mass(query, key, scaling, before, rotation)
