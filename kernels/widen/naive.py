"""Stored codes in the form that packed attention multiplies, in torch: the specification.

What is stored as 1 bit, or five codes in a byte, takes 2 bits on the device, in rows along what a
product sums over; see `kernels/packed_attention/naive.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.kernels.pack.form import Form
from mmkv.kernels.packed_attention.naive import resident_keys, resident_values
from mmkv.kernels.unpack_rotate.naive import unpack_bits


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
    """Codes of pages with the same blocks, group by group.

    Args:
        data: uint8 `[B]`, bytes of all pages.
        pages: int64 `[N]`, where a page's bytes begin.
        starts: where the planes of each of its blocks begin in it.
        lengths: tokens of each block, at least one in all.
        groups: tokens of each of a page's groups.
        size: `(H_kv, T, D)` of a group; T is a multiple of 16, codes of missing tokens are zeros.
        values: use the layout of values, not that of keys.

    Returns:
        uint8 `[N * groups, H_kv, T, D * bits / 8]`, values `[N * groups, H_kv, D, T * bits / 8]`.
    """
    heads, tokens, head_dim = size
    blocks = [
        unpack_bits(data, pages + start, length, heads, head_dim, form)
        for start, length in zip(starts, lengths, strict=True)
        if length
    ]
    codes = torch.cat(blocks, dim=2)  # [N, H_kv, sum(lengths), D]
    parts = codes.split(list(groups), dim=2)
    padded = [F.pad(part, (0, 0, 0, tokens - part.shape[2])) for part in parts]
    slots = torch.stack(padded, dim=1).flatten(0, 1)
    return resident_values(slots, form) if values else resident_keys(slots, form)
