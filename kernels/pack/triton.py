"""Packing on a GPU: fit, round to words, quantize and bit-pack, for a page of any layers at once.

Three launches; two more where some channels are wide, one more where codes are ternary. Nothing
waits for the device once a page with the same blocks has been packed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.pack.bits import quantize
from mmkv.kernels.pack.fit import fit
from mmkv.kernels.pack.form import Fit, Form

__all__ = ["fit", "pack", "quantize", "supports"]


def supports(form: Form, head_dim: int) -> bool:
    """Whether a form is packed in Triton; in torch otherwise.

    A transform needs 2 levels, and a power of two of channels, 16 or more.
    """
    narrow = head_dim - form.wide
    turned = form.levels == 2 and narrow >= 16 and narrow & (narrow - 1) == 0
    straight = form.levels != 3 or form.wide == 0
    return head_dim % 16 == 0 and straight and (form.transform == "none" or turned)


def pack(
    states: Tensor, lengths: Sequence[int], groups: Sequence[int], form: Form
) -> tuple[Fit, Tensor]:
    """As `naive.pack`. Without transform the bytes are the same for the same words."""
    if states.stride(3) != 1:
        states = states.contiguous()
    found, slots = fit(states, groups, form)
    return found, quantize(states, slots, lengths, groups, form)
