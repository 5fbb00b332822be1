"""Packing keys or values to 1.x bits in torch: the executable specification.

The layout of words and codes is that of `form.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.kernels.pack.form import (
    BITS,
    CONSTANT,
    FINEST,
    LISTED,
    PER_OCTAVE,
    UNITS,
    WIDE_LEVELS,
    ZERO,
    Form,
    Params,
    ratios,
    slot_order,
    tables,
    transformed,
)

_LLOYD_STEPS = 4
# how far levels then move from the best fit to the group's ends: least squares alone cuts off the
# few tokens that are unlike the others, and these are the ones that questions are about. Not where
# there are only three: long pages would be coded by their ends alone
_ENDS = 0.15
# step between levels, over the standard deviation, that is best for a Gaussian
_GAUSSIAN_STEP = {2: 1.596, 3: 1.224, 4: 0.9957, 16: 0.3352}


def pack(states: Tensor, form: Form) -> tuple[Params, Tensor]:
    """Fit and quantize groups of tokens.

    Args:
        states: `[G, H, T, D]`, T at least 1.

    Returns:
        the parameters, and codes uint8 `[G, H, T, D]` by slot.
    """
    x = states.float()
    wide = _choose_wide(x, form)
    order = slot_order(wide)
    x = x.gather(3, order[:, :, None].expand_as(x))  # by slot
    matrix = form.matrix(x.shape[3], x.device)
    scale, centre = _fit(x, form, matrix)
    first = x[:, :, 0]
    constant = (x == first[:, :, None]).all(dim=2)
    params = rounded(first, constant, scale, centre, wide, order)
    return params, quantize(x, params, form)


def quantize(slots: Tensor, params: Params, form: Form) -> Tensor:
    """Codes uint8 `[G, H, T, D]` of float32 states by slot, given their parameters."""
    table = tables(params)
    rest = slots - table.centre.gather(2, table.order)[:, :, None]
    rest = transformed(rest, form.wide, form.matrix(slots.shape[3], slots.device))
    inverse = torch.where(table.scale > 0, 1 / table.scale, 0.0)[:, :, None]
    levels = _levels(form, slots.shape[3], slots.device)
    codes = torch.floor(rest * inverse + levels / 2)
    return torch.minimum(codes.clamp_min_(0), levels - 1).to(torch.uint8)


def pack_bits(codes: Tensor, form: Form) -> Tensor:
    """Bytes uint8 `[N, bytes]` of N blocks' codes `[N, H, T, D]` by slot."""
    planes = []
    for part, levels in (
        (codes[..., : form.wide], WIDE_LEVELS),
        (codes[..., form.wide :], form.levels),
    ):
        if part.shape[3] == 0:
            continue
        if levels == 3:
            flat = part.flatten(1)
            size = -(-flat.shape[1] // 5)
            flat = torch.nn.functional.pad(flat, (0, 5 * size - flat.shape[1]))
            digits = flat.view(len(codes), 5, size)
            powers = digits.new_tensor([1, 3, 9, 27, 81])[:, None]
            planes.append((digits * powers).sum(1, dtype=torch.uint8))
        else:
            bits = BITS[levels]
            slots = part.unflatten(3, (8 // bits, -1))  # [N, H, T, 8 / bits, bytes]
            shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)[:, None]
            planes.append((slots << shifts).sum(3, dtype=torch.uint8).flatten(1))
    return torch.cat(planes, dim=1)


def _choose_wide(x: Tensor, form: Form) -> Tensor:
    """Which channels get 4 levels, bool `[G, H, D]`.

    Fitted: each head's largest variances, where 2 bits take most error away. By formula: the widest
    ranges over all tokens and heads, the same channels for every head.
    """
    if form.fitted:
        spread = (x - x.mean(dim=2, keepdim=True)).square().mean(dim=2)
    else:
        spread = (x.amax(dim=(1, 2)) - x.amin(dim=(1, 2)))[:, None].expand(-1, x.shape[1], -1)
    wide = torch.zeros_like(spread, dtype=torch.bool)
    return wide.scatter_(2, spread.topk(form.wide, dim=2).indices, True)


def _fit(x: Tensor, form: Form, matrix: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scales `[G, H, D]` by slot and centres `[G, H, D]` of slots `x`, before any rounding."""
    mean = x.mean(dim=2, keepdim=True) if form.centred else x.new_zeros(1, 1, 1, 1)
    rest = transformed(x - mean, form.wide, matrix)
    parts = [
        _fit_levels(part, levels, form)
        for part, levels in (
            (rest[..., : form.wide], WIDE_LEVELS),
            (rest[..., form.wide :], form.levels),
        )
    ]
    scale = torch.cat([scale for scale, _ in parts], dim=-1)
    shift = torch.cat([shift for _, shift in parts], dim=-1)
    shift = transformed(shift, form.wide, None if matrix is None else matrix.T)
    return scale[:, :, 0], (mean + shift)[:, :, 0]


def _fit_levels(x: Tensor, levels: int, form: Form) -> tuple[Tensor, Tensor]:
    """Scale and centre, each `[G, H, 1, n]`, of equally spaced levels for `[G, H, T, n]`."""
    if not form.fitted:
        if levels > 3:  # VidKV's 2 bits: from the least to the largest
            low, high = x.amin(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)
            return (high - low) / (levels - 1), (high + low) / 2
        size = x.abs().mean(dim=2, keepdim=True)  # its ternary and 1-bit codes: the mean size
        return size * (2 if levels == 2 else 1), torch.zeros_like(size)
    half = (levels - 1) / 2
    mean = x.mean(dim=2, keepdim=True)
    scale = (x - mean).square().mean(dim=2, keepdim=True).sqrt() * _GAUSSIAN_STEP[levels]
    centre = mean if form.centred else torch.zeros_like(mean)
    for _ in range(_LLOYD_STEPS):
        codes = ((x - centre) / scale.clamp_min(1e-30) + levels / 2).floor_()
        codes = codes.clamp_(0, levels - 1) - half
        if form.centred:  # least squares of x = centre + scale * code
            middle = codes.mean(dim=2, keepdim=True)
            spread = (codes * codes).mean(dim=2, keepdim=True) - middle * middle
            slope = (codes * x).mean(dim=2, keepdim=True) - middle * mean
        else:
            middle = torch.zeros_like(mean)
            spread = (codes * codes).mean(dim=2, keepdim=True)
            slope = (codes * x).mean(dim=2, keepdim=True)
        # one level in use: any scale will do
        scale = torch.where(spread > 1e-6, slope / spread.clamp_min(1e-6), scale)
        if form.centred:
            centre = mean - scale * middle
    if levels > 3 and form.centred:
        low, high = x.amin(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)
        scale = scale + _ENDS * ((high - low) / (levels - 1) - scale)
        centre = centre + _ENDS * ((high + low) / 2 - centre)
    return scale, centre


def rounded(
    first: Tensor, constant: Tensor, scale: Tensor, centre: Tensor, wide: Tensor, order: Tensor
) -> Params:
    """Round scales and centres to words; all `[G, H, D]` by slot but `wide`.

    Args:
        first: the group's first token. constant: whether all its tokens are the same.
    """
    top = scale.amax(dim=2)
    ratio = scale / top.clamp_min(1e-38)[..., None]
    code = (FINEST + PER_OCTAVE * ratio.clamp_min(1e-30).log2()).round()
    code = code.clamp(0, FINEST).long() * (scale > 0)
    step = top[..., None] * ratios(scale.device)[code] / UNITS
    count = torch.where(step > 0, centre / step, 0.0).round()
    lost = (step == 0) & (centre != 0)
    high = (count.clamp(CONSTANT + 1 - ZERO, ZERO - 1) + ZERO).long()
    high[lost | (count.abs() > ZERO - 2)] = LISTED
    high[constant] = CONSTANT
    exact = torch.where(constant, first, centre)
    words = torch.zeros_like(code).scatter_(2, order, (high << 6) | code)
    exact = torch.zeros_like(exact).scatter_(2, order, exact)
    return Params(words.to(torch.int32), top, wide, exact[(words >> 6) <= CONSTANT])


def _levels(form: Form, head_dim: int, device: torch.device) -> Tensor:
    levels = torch.full((head_dim,), float(form.levels), device=device)
    levels[: form.wide] = WIDE_LEVELS
    return levels
