"""Packing keys or values to 1.x bits in torch: the executable specification.

One group of tokens shares, per head and channel, a scale and a centre. An element is a small whole
number c of 0…levels-1 and stands for `centre + scale * (c - (levels - 1) / 2)`: affine, so that
attention can fold both into the query. Some channels may be coded with 4 levels ("wide") and the
others, after an orthonormal transform over them, with fewer ("narrow"; VidKV, arXiv 2503.16257).

Layout
    slots        a head's channels in the order they are coded: the wide ones, then the narrow ones,
                 each in rising order; slot i is channel order[i].
    word         uint16 per head and channel: the low 6 bits code the scale of the channel's slot,
                 the high 10 bits its centre. Scale: 0 for zero, else top * 2^((code - 63) / 6) with
                 `top`, float32, the head's largest. Centre: (high - 512) scale steps of 1/8;
                 high 0 means that it is in the list of exact float32 values, high 1 that the
                 channel is constant as well.
    codes        a block's wide plane, then its narrow one. 2, 4 or 16 levels: rows [H, T] of bytes,
                 byte b of n * bits / 8, slot j of 8 / bits <-> element j * (bytes of a row) + b,
                 bits from the low end. 3 levels: the plane `[H, T, n]` flat, 5 codes a byte, byte b
                 of P = ceil(H * T * n / 5), digit j (times 3^j) <-> element j * P + b.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

WIDE_LEVELS = 4
FINEST, PER_OCTAVE = 63, 6  # scale codes: the largest, and how many of them halve it
UNITS, ZERO = 8, 512  # centre codes: steps per scale, and the one for 0
LISTED, CONSTANT = 0, 1
TRANSFORMS = ("hadamard", "fft", "none")

_LLOYD_STEPS = 4
# how far levels then move from the best fit to the group's ends: least squares alone cuts off the
# few tokens that are unlike the others, and these are the ones that questions are about. Not where
# there are only three: long pages would be coded by their ends alone
_ENDS = 0.15
# step between levels, over the standard deviation, that is best for a Gaussian
_GAUSSIAN_STEP = {2: 1.596, 3: 1.224, 4: 0.9957, 16: 0.3352}
_BITS = {2: 1, 4: 2, 16: 4}


@dataclass(frozen=True, slots=True)
class Form:
    """How a tensor `[H, T, D]` is coded.

    levels: of the narrow channels: 2, 3, 4 or 16. wide: how many channels of a head are wide.
    transform: over the narrow channels. fitted: levels fitted to least squares, or by VidKV's
    formulas. centred: the group's mean is taken off before anything else.
    """

    levels: int
    wide: int = 0
    transform: str = "none"
    fitted: bool = True
    centred: bool = True

    def plane_bytes(self, heads: int, tokens: int, head_dim: int) -> tuple[int, int]:
        """Bytes of a block's wide and narrow plane."""
        rows = heads * tokens
        return (
            _plane(rows, self.wide, WIDE_LEVELS),
            _plane(rows, head_dim - self.wide, self.levels),
        )

    def matrix(self, head_dim: int, device: torch.device) -> Tensor | None:
        """The orthonormal float32 matrix that narrow channels are multiplied by; None for none."""
        if self.transform == "none":
            return None
        return _on_device(self.transform, head_dim - self.wide, device)


@dataclass(frozen=True, slots=True)
class Params:
    """What groups of tokens share; G groups.

    words: int32 `[G, H, D]`, values of 16 bits. top: float32 `[G, H]`. wide: bool `[G, H, D]`.
    listed: float32 `[E]`, exact centres in the order of the words that ask for them.
    """

    words: Tensor
    top: Tensor
    wide: Tensor
    listed: Tensor


@dataclass(frozen=True, slots=True)
class Tables:
    """`Params` decoded.

    scale: float32 `[G, H, D]` by slot. centre: float32 `[G, H, D]` by channel.
    order: int64 `[G, H, D]`, slot to channel. constant: bool `[G, H, D]` by channel, or None.
    """

    scale: Tensor
    centre: Tensor
    order: Tensor
    constant: Tensor | None


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
            bits = _BITS[levels]
            slots = part.unflatten(3, (8 // bits, -1))  # [N, H, T, 8 / bits, bytes]
            shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)[:, None]
            planes.append((slots << shifts).sum(3, dtype=torch.uint8).flatten(1))
    return torch.cat(planes, dim=1)


def tables(params: Params) -> Tables:
    """Scales and centres as numbers."""
    code = params.words & FINEST
    high = params.words >> 6
    scale = params.top[..., None] * _ratios(params.words.device)[code]
    centre = (high - ZERO) * (scale / UNITS)
    listed = high <= CONSTANT
    constant = None
    if params.listed.numel():
        centre[listed] = params.listed
        constant = high == CONSTANT
    order = slot_order(params.wide)
    return Tables(scale.gather(2, order), centre, order, constant)


def slot_order(wide: Tensor) -> Tensor:
    """Channels `[..., D]` in the order of their slots: wide ones, then narrow ones."""
    return (~wide).to(torch.uint8).argsort(dim=-1, stable=True)


def transformed(slots: Tensor, wide: int, matrix: Tensor | None) -> Tensor:
    """States `[..., D]` by slot, their narrow part multiplied by a matrix."""
    if matrix is None:
        return slots
    return torch.cat([slots[..., :wide], slots[..., wide:] @ matrix], dim=-1)


@functools.cache
def _on_device(name: str, size: int, device: torch.device) -> Tensor:
    return orthonormal(name, size).to(device)


@functools.cache
def orthonormal(name: str, size: int) -> Tensor:
    """A real orthonormal matrix float32 `[size, size]`.

    "hadamard": Walsh's, in blocks of the largest power of two that divides the size.
    "fft": sines and cosines, the real and imaginary parts of a Fourier transform, packed.
    """
    if name == "hadamard":
        block = torch.ones(1, 1, dtype=torch.float64)
        while size % (2 * len(block)) == 0:
            block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
        block = block / math.sqrt(len(block))
        return torch.block_diag(*[block] * (size // len(block))).float()
    if name == "fft":
        at = torch.arange(size, dtype=torch.float64)
        columns = [torch.full((size,), math.sqrt(1 / size), dtype=torch.float64)]
        for k in range(1, size // 2 + 1):
            angle = 2 * math.pi * k * at / size
            if 2 * k == size:
                columns.append(angle.cos() * math.sqrt(1 / size))
            else:
                columns += [angle.cos() * math.sqrt(2 / size), angle.sin() * math.sqrt(2 / size)]
        return torch.stack(columns, dim=1).float()
    raise ValueError(f"transform={name!r} is not known; use {', '.join(map(repr, TRANSFORMS))}")


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
    step = top[..., None] * _ratios(scale.device)[code] / UNITS
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


@functools.cache
def _ratios(device: torch.device) -> Tensor:
    """Scale over the largest one, float32 `[64]`, by code."""
    codes = torch.arange(FINEST + 1, dtype=torch.float64)
    ratios = torch.exp2((codes - FINEST) / PER_OCTAVE)
    ratios[0] = 0
    return ratios.float().to(device)


def _plane(rows: int, width: int, levels: int) -> int:
    return -(-rows * width // 5) if levels == 3 else rows * (width * _BITS[levels] // 8)
