"""Stored codes in the form that attention over packed history multiplies."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.dispatch import has_triton, on_device
from mmkv.kernels.pack.form import Form
from mmkv.kernels.widen import naive

__all__ = ["widen"]


def widen(
    data: Tensor,
    pages: Tensor,
    starts: Sequence[int],
    lengths: Sequence[int],
    groups: Sequence[int],
    form: Form,
    size: tuple[int, int, int],
    *,
    values: bool,
) -> Tensor:
    """Codes of whole pages, 2 or 4 bits each; see `naive.widen`."""
    if has_triton(data):
        from mmkv.kernels.widen import triton

        with on_device(data):
            return triton.widen(data, pages, starts, lengths, groups, form, size, values=values)
    return naive.widen(data, pages, starts, lengths, groups, form, size, values=values)
