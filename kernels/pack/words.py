"""Rounding scales and centres to words, on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from mmkv.kernels.pack.common import nearest
from mmkv.kernels.pack.form import CONSTANT, FINEST, LISTED, PER_OCTAVE, UNITS, ZERO

_FINEST, _PER_OCTAVE = tl.constexpr(float(FINEST)), tl.constexpr(float(PER_OCTAVE))
_UNITS, _ZERO = tl.constexpr(float(UNITS)), tl.constexpr(float(ZERO))
_LISTED, _CONSTANT = tl.constexpr(float(LISTED)), tl.constexpr(float(CONSTANT))


@triton.jit
def round_words(
    scales, centres, first, constant, order, ratios, words, top, exact, decoded, inverse,
    D: tl.constexpr, PADDED: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """As `naive._rounded` and `form.tables`."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PADDED)
    inside = slot < D
    at = row * D + slot
    scale = tl.load(scales + at, mask=inside, other=0.0)
    centre = tl.load(centres + at, mask=inside, other=0.0)
    same = tl.load(constant + at, mask=inside, other=0) != 0
    precise = tl.where(same, tl.load(first + at, mask=inside, other=0.0), centre)
    largest = tl.max(scale, 0)
    ratio = tl.maximum(scale / tl.maximum(largest, 2e-38), 1e-30)
    code = nearest(_FINEST + _PER_OCTAVE * tl.log2(ratio))
    code = tl.where(scale > 0, tl.minimum(tl.maximum(code, 0.0), _FINEST), 0.0).to(tl.int32)
    own = largest * tl.load(ratios + code)
    step = own / _UNITS
    count = tl.where(step > 0, centre / tl.where(step > 0, step, 1.0), 0.0)
    count = nearest(tl.minimum(tl.maximum(count, -1e6), 1e6))
    high = count + _ZERO
    far = (high < _CONSTANT + 1) | (high > 2 * _ZERO - 2)
    high = tl.where(far | ((step == 0) & (centre != 0)), _LISTED, high)
    high = tl.where(same, _CONSTANT, high)
    channel = slot
    if ORDERED:
        channel = tl.load(order + at, mask=inside, other=0).to(tl.int32)
    spot = row * D + channel
    tl.store(words + spot, high.to(tl.int32) * 64 + code, mask=inside)
    tl.store(exact + spot, precise, mask=inside)
    tl.store(top + row, largest)
    middle = tl.where(high <= _CONSTANT, precise, (high - _ZERO) * step)
    tl.store(decoded + at, middle, mask=inside)
    held = own > 0
    one = tl.full([PADDED], 1.0, tl.float32)
    over = tl.where(held, tl.div_rn(one, tl.where(held, own, 1.0)), 0.0)
    tl.store(inverse + at, over, mask=inside)
