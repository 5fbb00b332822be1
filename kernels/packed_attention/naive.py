"""Attention over packed history in torch: the executable specification.

Keys stay packed and unrotated; the query was rotated to one fixed distance from all of them. With
k = centre + scale * (code - half) per group of tokens and channel, scale, centre and transform are
folded into the query once per group, and only small integers are multiplied per token
(algorithms: KIVI, arXiv 2402.02750; transforms: q.k = (qM).(kM) for an orthonormal M).

Layout of a group of T tokens, T a multiple of 16; `bits` is 4 for 16 levels, otherwise 2
    keys    `[H_kv, T, D * bits / 8]`, byte b of a row, slot j of 8 / bits, bits from the low end
            <-> channel slot j * (D * bits / 8) + b, as in `kernels/pack/form.py`.
    values  `[H_kv, D, T * bits / 8]`, byte b of a row, slot j <-> token j * (T * bits / 8) + b:
            both are rows along what their product sums over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.kernels.common.naive import LOWEST, join, rotate
from mmkv.kernels.pack.form import WIDE_LEVELS, Form, transformed
from mmkv.kernels.packed_attention.history import Affine, PackedHistory

# codes of keys, and of values, multiplied at a time: what is unpacked of them stays in the cache
_MAX_NUMBERS = 1 << 21


def slot_bits(form: Form) -> int:
    """Bits that a resident code takes: 1-bit and ternary ones are widened to 2."""
    return 4 if form.levels == 16 else 2


def resident_keys(codes: Tensor, form: Form) -> Tensor:
    """Codes uint8 `[P, H, T, D]` by slot as resident keys."""
    bits = slot_bits(form)
    parts = codes.unflatten(3, (8 // bits, -1))  # [P, H, T, slots, bytes]
    return (parts << _shifts(bits, codes)[:, None]).sum(3, dtype=torch.uint8)


def resident_values(codes: Tensor, form: Form) -> Tensor:
    """Codes uint8 `[P, H, T, D]` by slot as resident values."""
    return resident_keys(codes.transpose(2, 3), form)


def packed_attention(
    query: Tensor,
    history: PackedHistory,
    visible: Tensor,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of a few queries over all visible tokens of a packed history.

    Args:
        query: `[1, H, n, D]`.
        visible: int32 `[P, 2]`, contiguous: the first of a group's tokens that is visible, and the
            one after the last.
        rotation: of the queries to the fixed distance, `[n, R]`; None where they are rotated.
        beside: what this, or `buffer_attention_lse`, returned for the same queries over other
            tokens; joined in here.

    Returns:
        out float32 `[1, H, n, D]`, and the log-sum-exp of the scores, float32 `[1, H, n]`; where
        nothing is visible, zeros and minus infinity.
    """
    if rotation is not None:
        query = rotate(query, rotation)
    _, heads, n, head_dim = query.shape
    groups, kv_heads, tokens, _ = history.keys.shape
    q = query.float().reshape(kv_heads, -1, head_dim) * scaling  # [H_kv, G * n, D]
    lse = q.new_full(q.shape[:2], float("-inf"))
    out = torch.zeros_like(q)
    tile = max(1, _MAX_NUMBERS // (kv_heads * tokens * head_dim))
    at = torch.arange(tokens, device=query.device)
    keys, values = history.affine
    for first in range(0, groups, tile):
        part = slice(first, first + tile)
        seen = (at >= visible[part, :1]) & (at < visible[part, 1:])  # [P, T]
        if _nothing(seen):
            continue
        folded, offset = fold_query(q, keys[part], history.key_form)
        scores = _times(folded, history.keys[part], history.key_form) + offset[..., None]
        scores = scores.masked_fill(~seen[:, None, None], float("-inf"))  # [P, H_kv, G * n, T]
        own = scores.permute(1, 2, 0, 3).flatten(2).logsumexp(dim=-1)  # [H_kv, G * n]
        weights = (scores - own.clamp_min(LOWEST)[..., None]).exp()
        mixed = _mix(weights, history.values[part], values[part], history.value_form)
        both = torch.logaddexp(lse, own)
        least = both.clamp_min(LOWEST)
        out = out * (lse - least).exp()[..., None] + mixed * (own - least).exp()[..., None]
        lse = both
    found = out.view(1, heads, n, head_dim), lse.view(1, heads, n)
    return found if beside is None else join(*beside, *found)


def fold_query(q: Tensor, table: Affine, form: Form) -> tuple[Tensor, Tensor]:
    """Queries `[H_kv, m, D]` in the form that P groups' codes are multiplied by.

    Returns:
        queries `[P, H_kv, m, D]` by slot, and what is added to a group's scores, `[P, H_kv, m]`.
    """
    offset = torch.einsum("hmd,phd->phm", q, table.centre)
    slots = q.expand(len(table.scale), -1, -1, -1)
    if table.constant is not None:
        slots = slots.masked_fill(table.constant[:, :, None], 0.0)
    if table.order is not None:
        slots = slots.gather(3, table.order.long()[:, :, None].expand_as(slots))
    slots = transformed(slots, form.wide, form.matrix(q.shape[2], q.device))
    folded = slots * table.scale[:, :, None]
    return folded, offset - (folded * _half(form, q)).sum(dim=3)


def _nothing(seen: Tensor) -> bool:
    """Whether no token is seen, as far as the host knows without waiting for a device."""
    return seen.device.type == "cpu" and not seen.any()


def _mix(weights: Tensor, codes: Tensor, table: Affine, form: Form) -> Tensor:
    """Values of P groups mixed by weights `[P, H_kv, m, T]`: `[H_kv, m, D]`."""
    total, head_dim = weights.sum(dim=3, keepdim=True), codes.shape[2]
    slots = _times(weights, codes, form) - total * _half(form, weights, head_dim)
    slots = slots * table.scale[:, :, None]
    matrix = form.matrix(head_dim, codes.device)
    slots = transformed(slots, form.wide, None if matrix is None else matrix.T)
    if table.order is not None:
        order = table.order.long()[:, :, None].expand_as(slots)
        slots = torch.empty_like(slots).scatter_(3, order, slots)
    if table.constant is not None:
        slots = slots.masked_fill(table.constant[:, :, None], 0.0)
    return (slots + total * table.centre[:, :, None]).sum(dim=0)


def _times(rows: Tensor, packed: Tensor, form: Form) -> Tensor:
    """Rows float32 `[P, H, m, K]` times codes that are planar over K: `[P, H, m, N]`."""
    bits, shape = slot_bits(form), packed.flatten(0, 1).shape  # [P * H, N, K * bits / 8]
    words, mask = packed.view(-1).view(torch.int32), ((1 << bits) - 1) * 0x01010101
    out = rows.new_zeros((shape[0], rows.shape[2], shape[1]))
    for slot, part in enumerate(rows.flatten(0, 1).chunk(8 // bits, dim=2)):
        # a plane at a time, four codes at once: no more than a quarter is ever unpacked
        codes = ((words >> bits * slot) & mask).view(torch.uint8).view(shape)
        out.baddbmm_(part, codes.float().transpose(1, 2))
    return out.unflatten(0, packed.shape[:2])


def _shifts(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)


def _half(form: Form, like: Tensor, head_dim: int | None = None) -> Tensor:
    """(levels - 1) / 2 of every slot."""
    half = like.new_full((head_dim or like.shape[-1],), (form.levels - 1) / 2)
    half[: form.wide] = (WIDE_LEVELS - 1) / 2
    return half
