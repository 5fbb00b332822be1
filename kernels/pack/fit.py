"""Fitting on a GPU: which channels are wide, scales and centres, and their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.pack import naive
from mmkv.kernels.pack.choose import choose
from mmkv.kernels.pack.form import WIDE_LEVELS, Fit, Form, ratios
from mmkv.kernels.pack.levels import fit_levels
from mmkv.kernels.pack.words import round_words


@dataclass(frozen=True, slots=True)
class Slots:
    """A fit in the form that `bits.py` quantizes by, `[G, H, D]` by slot.

    Attributes:
        order: int16, slot to channel; None where no channels are wide.
        centre: float32, as it is decoded.
        inverse: float32, one over the scale as it is decoded.
    """

    order: Tensor | None
    centre: Tensor
    inverse: Tensor


def fit(states: Tensor, groups: Sequence[int], form: Form) -> tuple[Fit, Slots]:
    """What the groups of a page share; states `[L, H, N, D]`, D contiguous."""
    layers, heads, tokens, dim = states.shape
    size = (layers * len(groups), heads, dim)
    rows = size[0] * heads
    scale, centre, first, exact, inverse, decoded = states.new_empty(
        (6, *size), dtype=torch.float32
    )
    constant, wide = states.new_empty((2, *size), dtype=torch.bool)
    words = states.new_empty(size, dtype=torch.int32)
    top = scale.new_empty(size[:2])
    where = (tokens, groups[0], *states.stride()[:3])
    padded = triton.next_power_of_2(dim)
    order = None
    if form.wide:
        order = states.new_empty(size, dtype=torch.int16)
        choose[(rows,)](
            states, order, wide, *where, GROUPS=len(groups), HEADS=heads, D=dim, PADDED=padded,
            WIDE=form.wide, FITTED=form.fitted, TILE=32, num_warps=8 if padded <= 128 else 16,
        )  # fmt: skip
    else:
        wide.zero_()
    matrix, arch = form.matrix(dim, states.device), configs.capability(states.device)
    sample = max(16, min(naive.SAMPLE, triton.next_power_of_2(max(groups))))
    for start, count, levels, turn in (
        (0, form.wide, WIDE_LEVELS, None),
        (form.wide, dim - form.wide, form.levels, matrix),
    ):
        if not count:
            continue
        block = count if turn is not None else _block(count)
        tiles = configs.fit_tiles(arch, block, ordered=order is not None, turned=turn is not None)
        fit_levels[(rows, count // block)](
            states, states if order is None else order, states if turn is None else turn,
            first, constant, scale, centre, *where, start,
            GROUPS=len(groups), HEADS=heads, D=dim, BLOCK=block, LEVELS=levels,
            STEP=naive.GAUSSIAN_STEP[levels], FITTED=form.fitted, CENTRED=form.centred,
            ORDERED=order is not None, TRANSFORM=turn is not None, ROWS=sample,
            FULL=min(groups) >= sample, TILE=min(tiles.rows, sample), num_warps=tiles.warps,
            num_stages=tiles.stages,
        )  # fmt: skip
    round_words[(rows,)](
        scale, centre, first, constant, scale if order is None else order,
        ratios(states.device), words, top, exact, decoded, inverse,
        D=dim, PADDED=padded, ORDERED=order is not None, num_warps=4,
    )  # fmt: skip
    return Fit(words, top, wide, exact), Slots(order, decoded, inverse)


def _block(count: int) -> int:
    """Channels in a program: the largest power of two up to 32 that divides `count`."""
    return min(32, count & -count)
