"""Packed blocks back to full precision, rotated, into one contiguous buffer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.pack.form import Form, Params
from mmkv.kernels.unpack_rotate import naive
from mmkv.kernels.unpack_rotate.naive import unpack_bits

__all__ = ["unpack_bits", "unpack_rotate"]


def unpack_rotate(
    codes: Tensor,
    at: Tensor,
    lengths: Sequence[int],
    rows: Tensor,
    params: Params,
    form: Form,
    rotation: tuple[Tensor, Tensor] | None,
    out: Tensor,
) -> Tensor:
    """Decode blocks side by side into `out`; see `naive.unpack_rotate`."""
    if runs_triton(out, out.shape[-1]):
        from mmkv.kernels.unpack_rotate import triton

        if triton.supports(form, out.shape[-1]) and out.stride(2) == 1:
            with on_device(out):
                return triton.unpack_rotate(codes, at, lengths, rows, params, form, rotation, out)
    return naive.unpack_rotate(codes, at, lengths, rows, params, form, rotation, out)
