"""Values with scales per token: to a few bits and back, blocks of any lengths at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.pack.form import Form
from mmkv.kernels.token_pack import naive
from mmkv.kernels.token_pack.naive import block_bytes

__all__ = ["block_bytes", "pack_tokens", "unpack_tokens"]


def pack_tokens(states: Tensor, lengths: Sequence[int], form: Form) -> Tensor:
    """Bytes of a page's blocks, layer by layer; see `naive.pack_tokens`."""
    if runs_triton(states, states.shape[-1]):
        from mmkv.kernels.token_pack import triton

        with on_device(states):
            return triton.pack_tokens(states, lengths, form)
    return naive.pack_tokens(states, lengths, form)


def unpack_tokens(
    data: Tensor, at: Tensor, lengths: Sequence[int], form: Form, out: Tensor
) -> Tensor:
    """Decode blocks side by side into `out`; see `naive.unpack_tokens`."""
    if runs_triton(out, out.shape[-1]) and out.stride(2) == 1:
        from mmkv.kernels.token_pack import triton

        with on_device(data):
            return triton.unpack_tokens(data, at, lengths, form, out)
    return naive.unpack_tokens(data, at, lengths, form, out)
