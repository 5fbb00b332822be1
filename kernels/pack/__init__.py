"""Keys or values to 1.x bits: fit, quantize, transform, bit-pack."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.dispatch import on_device, runs_triton
from mmkv.kernels.pack import naive
from mmkv.kernels.pack.form import Fit, Form, Params

__all__ = ["Fit", "Form", "Params", "pack"]


def pack(
    states: Tensor, lengths: Sequence[int], groups: Sequence[int], form: Form
) -> tuple[Fit, Tensor]:
    """What a page's groups share, and its blocks' bytes; see `naive.pack`."""
    if runs_triton(states, states.shape[-1]):
        from mmkv.kernels.pack import triton

        if triton.supports(form, states.shape[-1]):
            with on_device(states):
                return triton.pack(states, lengths, groups, form)
    return naive.pack(states, lengths, groups, form)
