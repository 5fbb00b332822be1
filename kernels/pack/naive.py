"""Packing keys or values to 1.x bits in torch: the executable specification.

The layout of words and codes is that of `form.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    Fit,
    Form,
    Params,
    ratios,
    slot_order,
    tables,
    transformed,
)

# tokens that levels are fitted to, spread over a longer group, and Lloyd's steps over all tokens or
# over such a sample: more steps would fit the sample, not the group
SAMPLE = 256
STEPS, SAMPLE_STEPS = 4, 2
# how far levels then move from the best fit to the group's ends: least squares alone cuts off the
# few tokens that are unlike the others, and these are the ones that questions are about. Not with
# only three levels: long pages would be coded by their ends alone
ENDS = 0.15
# step between levels, in standard deviations, that is best for a Gaussian
GAUSSIAN_STEP = {2: 1.596, 3: 1.224, 4: 0.9957, 16: 0.3352}


def pack(
    states: Tensor, lengths: Sequence[int], groups: Sequence[int], form: Form
) -> tuple[Fit, Tensor]:
    """Fit, quantize and bit-pack a page, of any number of layers at once.

    Args:
        states: `[L, H, N, D]`. lengths: tokens of each of the page's blocks, N in all.
        groups: tokens of each of its groups, N in all; all but the last are equally long.

    Returns:
        what the groups share, layer by layer, and bytes uint8 `[L, B]`: each block's codes,
        one block after the other.
    """
    layers, fits, codes = len(states), [], []
    for piece in _pieces(states, groups):
        fit, own = code_groups(piece, form)
        fits.append(fit)
        codes.append(own.unflatten(0, (layers, -1)).transpose(1, 2).flatten(2, 3))
    names = ("words", "top", "wide", "exact")
    whole = [torch.cat([getattr(f, n).unflatten(0, (layers, -1)) for f in fits], 1) for n in names]
    return Fit(*(part.flatten(0, 1) for part in whole)), blocks(torch.cat(codes, 2), lengths, form)


def code_groups(states: Tensor, form: Form) -> tuple[Fit, Tensor]:
    """Fit and quantize groups of tokens.

    Args:
        states: `[G, H, T, D]`, T at least 1.

    Returns:
        what they share, and codes uint8 `[G, H, T, D]` by slot.
    """
    x = states.float()
    wide = _choose_wide(x, form)
    order = slot_order(wide)
    if form.wide:
        x = x.gather(3, order[:, :, None].expand_as(x))  # by slot
    scale, centre = _fit(x, form)
    first = x[:, :, 0]
    constant = (x == first[:, :, None]).all(dim=2)
    fit = _rounded(first, constant, scale, centre, wide, order)
    return fit, quantize(x, fit.params, form)


def quantize(slots: Tensor, params: Params, form: Form) -> Tensor:
    """Codes uint8 `[G, H, T, D]` of float32 states by slot, given their parameters."""
    table = tables(params)
    centre = table.centre.gather(2, table.order) if form.wide else table.centre
    rest = slots - centre[:, :, None]
    rest = transformed(rest, form.wide, form.matrix(slots.shape[3], slots.device))
    inverse = torch.where(table.scale > 0, 1 / table.scale, 0.0)[:, :, None]
    levels = _levels(form, slots.shape[3], slots.device)
    codes = torch.floor(rest * inverse + levels / 2)
    return torch.minimum(codes.clamp_min_(0), levels - 1).to(torch.uint8)


def pack_bits(codes: Tensor, form: Form) -> Tensor:
    """Bytes uint8 `[N, bytes]` of N blocks' codes `[N, H, T, D]` by slot."""
    planes = []
    for slots, levels in _parts(form, codes.shape[3]):
        part = codes[..., slots]
        if levels == 3:
            flat = part.flatten(1)
            size = -(-flat.shape[1] // 5)
            flat = torch.nn.functional.pad(flat, (0, 5 * size - flat.shape[1]))
            digits = flat.view(len(codes), 5, size)
            powers = digits.new_tensor([1, 3, 9, 27, 81])[:, None]
            planes.append((digits * powers).sum(1, dtype=torch.uint8))
        else:
            bits = BITS[levels]
            part = part.unflatten(3, (8 // bits, -1))  # [N, H, T, 8 / bits, bytes]
            shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)[:, None]
            planes.append((part << shifts).sum(3, dtype=torch.uint8).flatten(1))
    return torch.cat(planes, dim=1)


def _parts(form: Form, head_dim: int) -> list[tuple[slice, int]]:
    """Slots and levels of the wide and the narrow part, where there are any."""
    parts = [(slice(0, form.wide), WIDE_LEVELS), (slice(form.wide, head_dim), form.levels)]
    return [part for part in parts if part[0].start < part[0].stop]


def _pieces(states: Tensor, groups: Sequence[int]) -> list[Tensor]:
    """Groups `[L * G, H, T, D]`: the equally long ones, and the last if it is longer."""
    count = len(groups) - 1 if groups[-1] != groups[0] else len(groups)
    pieces = []
    for part, number in (
        (states[:, :, : groups[0] * count], count),
        (states[:, :, groups[0] * count :], len(groups) - count),
    ):
        if number:
            pieces.append(part.unflatten(2, (number, -1)).transpose(1, 2).flatten(0, 1))
    return pieces


def blocks(codes: Tensor, lengths: Sequence[int], form: Form) -> Tensor:
    """Bytes `[L, B]` of the blocks whose codes are `[L, H, N, D]`."""
    parts = codes.split(list(lengths), dim=2)
    out: dict[int, Tensor] = {}
    for length in set(lengths) - {0}:  # blocks of one length at once: mostly all of them
        which = [i for i, other in enumerate(lengths) if other == length]
        together = torch.stack([parts[i] for i in which])  # [blocks, L, H, T, D]
        bits = pack_bits(together.flatten(0, 1), form).unflatten(0, (len(which), -1))
        out.update(zip(which, bits, strict=True))
    return torch.cat([out[i] for i in sorted(out)], dim=1)


def _choose_wide(x: Tensor, form: Form) -> Tensor:
    """Which channels get 4 levels, bool `[G, H, D]`.

    Fitted: each head's largest variances, where 2 bits take most error away. By formula: the widest
    ranges over all tokens and heads, the same channels for every head. Of equals, the first.
    """
    if form.fitted:
        spread = (x - x.mean(dim=2, keepdim=True)).square().mean(dim=2)
    else:
        spread = (x.amax(dim=(1, 2)) - x.amin(dim=(1, 2)))[:, None].expand(-1, x.shape[1], -1)
    first = spread.argsort(dim=2, descending=True, stable=True)[:, :, : form.wide]
    return torch.zeros_like(spread, dtype=torch.bool).scatter_(2, first, True)


def _fit(x: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Scales `[G, H, D]` by slot and centres `[G, H, D]` of slots `x`, before any rounding."""
    matrix, tokens = form.matrix(x.shape[3], x.device), x.shape[2]
    own, steps = x, STEPS
    if form.fitted and tokens > SAMPLE:
        own, steps = x[:, :, torch.arange(SAMPLE, device=x.device) * tokens // SAMPLE], SAMPLE_STEPS
    mean = own.mean(dim=2, keepdim=True) if form.centred else x.new_zeros(1, 1, 1, 1)
    rest = transformed(own - mean, form.wide, matrix)
    scales, shifts = [], []
    for part, levels in _parts(form, x.shape[3]):
        some = rest[..., part]
        if not form.fitted:
            scale, shift = _by_formula(some, levels)
        else:
            scale, shift = _least_squares(some, levels, steps, centred=form.centred)
        if form.fitted and form.centred and levels > 3:
            every = rest if own is x else transformed(x - mean, form.wide, matrix)
            low, high = _ends(every[..., part])
            scale = scale + ENDS * ((high - low) / (levels - 1) - scale)
            shift = shift + ENDS * ((high + low) / 2 - shift)
        scales.append(scale)
        shifts.append(shift)
    shift = transformed(torch.cat(shifts, dim=-1), form.wide, None if matrix is None else matrix.T)
    return torch.cat(scales, dim=-1)[:, :, 0], (mean + shift)[:, :, 0]


def _ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest over tokens; `aminmax` is ten times slower on a CPU."""
    return x.amin(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)


def _by_formula(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """VidKV's scale and centre, each `[G, H, 1, n]`, for `[G, H, T, n]`."""
    if levels > 3:  # from the least to the largest
        low, high = _ends(x)
        return (high - low) / (levels - 1), (high + low) / 2
    size = x.abs().mean(dim=2, keepdim=True)
    return size * (2 if levels == 2 else 1), torch.zeros_like(size)


def _least_squares(x: Tensor, levels: int, steps: int, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Scale and centre, each `[G, H, 1, n]`, of equally spaced levels for `[G, H, T, n]`."""
    half = (levels - 1) / 2
    mean = x.mean(dim=2, keepdim=True)
    scale = (x - mean).square().mean(dim=2, keepdim=True).sqrt() * GAUSSIAN_STEP[levels]
    centre = mean if centred else torch.zeros_like(mean)
    for _ in range(steps):
        codes = ((x - centre) / scale.clamp_min(1e-30) + levels / 2).floor_()
        codes = codes.clamp_(0, levels - 1) - half
        if centred:  # least squares of x = centre + scale * code
            middle = codes.mean(dim=2, keepdim=True)
            spread = (codes * codes).mean(dim=2, keepdim=True) - middle * middle
            slope = (codes * x).mean(dim=2, keepdim=True) - middle * mean
        else:
            middle = torch.zeros_like(mean)
            spread = (codes * codes).mean(dim=2, keepdim=True)
            slope = (codes * x).mean(dim=2, keepdim=True)
        # one level in use: any scale will do
        scale = torch.where(spread > 1e-6, slope / spread.clamp_min(1e-6), scale)
        if centred:
            centre = mean - scale * middle
    return scale, centre


def _rounded(
    first: Tensor, constant: Tensor, scale: Tensor, centre: Tensor, wide: Tensor, order: Tensor
) -> Fit:
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
    return Fit(words.to(torch.int32), top, wide, exact)


def _levels(form: Form, head_dim: int, device: torch.device) -> Tensor:
    levels = torch.full((head_dim,), float(form.levels), device=device)
    levels[: form.wide] = WIDE_LEVELS
    return levels
