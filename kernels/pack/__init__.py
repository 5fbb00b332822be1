"""Keys or values to 1.x bits: fit, quantize, transform, bit-pack."""

from __future__ import annotations

from torch import Tensor

from mmkv.kernels.dispatch import has_triton, on_device, runs_triton
from mmkv.kernels.pack import naive
from mmkv.kernels.pack.form import Form, Params

__all__ = ["Form", "Params", "pack", "pack_bits"]


def pack(states: Tensor, form: Form) -> tuple[Params, Tensor]:
    """Parameters and codes of groups of tokens; see `naive.pack`."""
    if runs_triton(states, states.shape[-1]):
        from mmkv.kernels.pack import triton

        if triton.supports(form, states.shape[-1]):
            with on_device(states):
                return triton.pack(states, form)
    return naive.pack(states, form)


def pack_bits(codes: Tensor, form: Form) -> Tensor:
    """Bytes of blocks of codes; see `naive.pack_bits`."""
    if has_triton(codes) and codes.numel():
        from mmkv.kernels.pack import triton

        with on_device(codes):
            return triton.pack_bits(codes, form)
    return naive.pack_bits(codes, form)
