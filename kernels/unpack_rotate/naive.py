"""Packed blocks back to full precision in torch, rotated to new positions: the specification.

The layout of codes and words is that of `kernels/pack/form.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from mmkv.kernels.common.naive import rotate
from mmkv.kernels.pack.form import WIDE_LEVELS, Form, Params, Tables, tables, transformed


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
    """Decode keys or values of N blocks side by side into one buffer.

    Args:
        codes: uint8 `[B]`, bytes of many blocks; like all but the last two, in host memory.
        at: int64 `[N]`, where a block's planes begin.
        lengths: tokens of each block.
        rows: int64 `[sum(lengths)]`, the group of each token in `params`.
        rotation: cosines and sines `[sum(lengths), R]` for keys, None for values, where `out` is.
        out: `[H, sum(lengths), D]`, of the device and dtype that are wanted; filled.

    Returns:
        `out`.
    """
    heads, _, head_dim = out.shape
    device = out.device
    codes, at, rows = codes.to(device), at.to(device), rows.to(device)
    table = tables(params.to(device))
    matrix = form.matrix(head_dim, device)
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    for length in sorted(set(lengths) - {0}):  # blocks of one length at once: mostly all of them
        which = [i for i, other in enumerate(lengths) if other == length]
        slots = unpack_bits(codes, at[which], length, heads, head_dim, form)
        first = torch.tensor([starts[i] for i in which], device=device)
        tokens = first[:, None] + torch.arange(length, device=device)  # [N, T]
        states = _decode(slots, table, rows[tokens], form, matrix)
        states = states.permute(1, 0, 2, 3).reshape(heads, -1, head_dim)
        if len(which) == len(lengths):
            out.copy_(_rotated(states, rotation, slice(None)))
        else:
            out[:, tokens.flatten()] = _rotated(states, rotation, tokens.flatten()).to(out.dtype)
    return out


def unpack_bits(
    codes: Tensor, at: Tensor, length: int, heads: int, head_dim: int, form: Form
) -> Tensor:
    """Codes uint8 `[N, H, T, D]` by slot of blocks of one length that begin at bytes `at`."""
    sizes = form.plane_bytes(heads, length, head_dim)
    data = codes[at[:, None] + torch.arange(sum(sizes), device=codes.device)]  # [N, bytes]
    planes = []
    for part, width, levels in zip(
        data.split(sizes, dim=1),
        (form.wide, head_dim - form.wide),
        (WIDE_LEVELS, form.levels),
        strict=True,
    ):
        shape = (len(data), heads, length, width)
        if width == 0:
            continue
        if levels == 3:
            digits = _digits(codes.device)[part.long()]  # [N, P, 5]
            flat = digits.transpose(1, 2).flatten(1)[:, : heads * length * width]
            planes.append(flat.view(shape))
        else:
            bits = {2: 1, 4: 2, 16: 4}[levels]
            shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)[:, None]
            row = part.view(len(data), heads, length, 1, -1)
            planes.append(((row >> shifts) & (levels - 1)).view(shape))
    return torch.cat(planes, dim=3)


def _decode(
    slots: Tensor, table: Tables, rows: Tensor, form: Form, matrix: Tensor | None
) -> Tensor:
    """Float32 `[N, H, T, D]` by channel of codes by slot; rows `[N, T]` are groups."""
    per_block = bool((rows == rows[:, :1]).all())
    rows = rows[:, :1] if per_block else rows

    def spread(entries: Tensor) -> Tensor:  # [G, H, D] -> [N, H, T or 1, D]
        return entries[rows].transpose(1, 2)

    half = torch.full((slots.shape[3],), (form.levels - 1) / 2, device=slots.device)
    half[: form.wide] = (WIDE_LEVELS - 1) / 2
    states = (slots - half) * spread(table.scale)
    states = transformed(states, form.wide, None if matrix is None else matrix.T)
    if form.wide:
        order = spread(table.order).expand_as(states)
        states = torch.empty_like(states).scatter_(3, order, states)
    centre = spread(table.centre)
    states = states + centre
    if table.constant is not None:
        states = torch.where(spread(table.constant), centre, states)
    return states


def _rotated(states: Tensor, rotation: tuple[Tensor, Tensor] | None, at: Tensor | slice) -> Tensor:
    if rotation is None:
        return states
    return rotate(states, (rotation[0][at], rotation[1][at]))


@functools.cache
def _digits(device: torch.device) -> Tensor:
    """The five base-3 digits of every byte, uint8 `[256, 5]`."""
    numbers = torch.arange(256)[:, None] // torch.tensor([1, 3, 9, 27, 81]) % 3
    return numbers.to(torch.uint8).to(device)
